package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// machines are the architectures that are published.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// proveDist makes what is published in a clean clone, twice, unpacks each piece and
// runs what is in it.
func proveDist(ctx context.Context, e *env) (string, error) {
	dir, note, err := e.clone(ctx)
	if err != nil {
		return "", err
	}
	const version = "v0.3.7"
	var sums [2]string
	for i := range sums {
		if _, err = output(command(ctx, dir, nil, "make", "dist", "VERSION="+version)); err != nil {
			return "", err
		}
		if sums[i], err = e.sh(ctx, filepath.Join(dir, "dist"), "sha256sum --quiet -c SHA256SUMS && cat SHA256SUMS"); err != nil {
			return "", err
		}
	}
	if sums[0] != sums[1] {
		return "", fmt.Errorf("two builds of one commit differ:\n%s\n%s", sums[0], sums[1])
	}
	var ran []string
	for arch, machine := range machines {
		for _, form := range []struct{ ext, unpack, bin, completion string }{
			{"tar.gz", "tar -xzf %s -C %s --strip-components=1", "quorate", "completions/quorate.bash"},
			{"deb", "dpkg-deb -x %s %s", "usr/bin/quorate", "usr/share/bash-completion/completions/quorate"},
			{"rpm", "rpm2cpio %s | cpio -idm --quiet --no-absolute-filenames -D %s", "usr/bin/quorate", "usr/share/bash-completion/completions/quorate"},
		} {
			file := filepath.Join(dir, "dist", "quorate_"+strings.TrimPrefix(version, "v")+"_linux_"+arch+"."+form.ext)
			to := filepath.Join(e.dir, "unpacked", arch, form.ext)
			if err = os.MkdirAll(to, 0o700); err != nil {
				return "", err
			}
			if _, err = e.sh(ctx, dir, fmt.Sprintf(form.unpack, file, to)); err != nil {
				return "", err
			}
			if _, err = os.Stat(filepath.Join(to, form.completion)); err != nil {
				return "", err
			}
			said, runErr := e.runs(ctx, filepath.Join(to, form.bin), machine)
			if runErr != nil {
				return "", fmt.Errorf("%s: %w", filepath.Base(file), runErr)
			}
			if err = contains(filepath.Base(file)+": version", said, version); err != nil {
				return "", err
			}
			ran = append(ran, arch+" "+form.ext)
		}
	}
	bin := filepath.Join(e.dir, "unpacked", "amd64", "deb", "usr", "bin", "quorate")
	u, err := e.up(ctx, how{bin: bin, cwd: e.dir, dir: filepath.Join(e.dir, "data")})
	if err != nil {
		return "", err
	}
	if _, err := u.ctrlC(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %d packages, static, unpacked, and each ran (%s; arm64 under qemu); checksums hold; a second build gave the same bytes; `up` of the deb: healthy in %.1f s",
		note, len(ran), strings.Join(ran, ", "), u.took().Seconds()), u.gone()
}

// runs checks that a binary is static and for that machine, and has it say its
// version.
func (e *env) runs(ctx context.Context, bin string, machine elf.Machine) (string, error) {
	f, err := elf.Open(bin)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	if f.Machine != machine {
		return "", fmt.Errorf("%s is for %s", bin, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			return "", errors.New("it is not static")
		}
	}
	line := bin + " version"
	if machine == elf.EM_AARCH64 {
		line = "qemu-aarch64-static " + line
	}
	return e.sh(ctx, e.dir, line)
}
