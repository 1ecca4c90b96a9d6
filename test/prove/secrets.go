package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/store/remote"
)

// password of a Secret that is applied; it stands nowhere else.
const password = "correct-horse-battery-staple-7381"

// secretFile is a Secret as a person would write it.
const secretFile = `apiVersion: v1
kind: Secret
metadata:
  name: prove
stringData:
  password: ` + password + `
`

// needle is what must not be found.
type needle struct {
	what  string
	forms [][]byte
}

// newNeedle looks for a text as it is, and as a part of a longer one in base64.
func newNeedle(what, text string) needle {
	return needle{what, append(base64Forms([]byte(text)), []byte(text))}
}

// base64Forms are the ways in which text can stand within the base64 of something
// longer: one for each place that its first byte can have in a group of three.
func base64Forms(text []byte) [][]byte {
	forms := make([][]byte, 0, 3)
	for shift := range 3 {
		all := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), text...))
		// What also depends on the bytes before and behind is cut off.
		begin := (shift*8 + 5) / 6
		end := (shift + len(text)) * 8 / 6
		forms = append(forms, []byte(all[begin:end]))
	}
	return forms
}

// search says which needles are found in which files below the paths.
func search(needles []needle, paths ...string) (found []string, files int, err error) {
	for _, path := range paths {
		err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			raw, err := readPlain(path)
			if err != nil {
				return err
			}
			files++
			for _, n := range needles {
				for i, form := range n.forms {
					if bytes.Contains(raw, form) {
						found = append(found, fmt.Sprintf("%s (form %d) in %s", n.what, i, path))
					}
				}
			}
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return found, files, nil
}

// readPlain reads a file, unpacked if it is packed.
func readPlain(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		return raw, err
	}
	r, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return io.ReadAll(r)
}

// judgeSearch: nothing may be found in the store, all in the control, or the search
// would not find it anywhere.
func judgeSearch(inStore, inControl []string, files, needles int) error {
	var errs []error
	for _, f := range inStore {
		errs = append(errs, fmt.Errorf("in the clear: %s", f))
	}
	if len(inControl) < needles {
		errs = append(errs, fmt.Errorf("the search finds only %d of %d things where they are known to stand: %v", len(inControl), needles, inControl))
	}
	if files < 3 {
		errs = append(errs, fmt.Errorf("only %d files were searched", files))
	}
	return errors.Join(errs...)
}

func proveStoreSecrets(ctx context.Context, e *env) (string, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	file := filepath.Join(e.dir, "secret.yaml")
	if err = os.WriteFile(file, []byte(secretFile), 0o600); err != nil {
		return "", err
	}
	if _, err = u.quorate(ctx, "apply", "-f", file); err != nil {
		return "", err
	}
	backup := filepath.Join(e.dir, "fleet.tar")
	if _, err = u.quorate(ctx, "server", "backup", backup); err != nil {
		return "", err
	}
	// The control holds the same Secrets unsealed, as the store would without sealing.
	unsealed, err := u.quorate(ctx, "get", "secrets", "-o", "json")
	if err != nil {
		return "", err
	}
	cfg, err := remote.LoadConfig(app.ClientConfigFile(u.dir))
	if err != nil {
		return "", err
	}
	control := filepath.Join(e.dir, "control.json")
	if err = os.WriteFile(control, []byte(unsealed+cfg.Token), 0o600); err != nil {
		return "", err
	}
	needles := []needle{newNeedle("a private key", "PRIVATE KEY-----"), newNeedle("the password", password), newNeedle("the token", cfg.Token)}
	live, liveFiles, err := search(needles, u.storeDir(), backup)
	if err != nil {
		return "", err
	}
	// Once more when all is written out.
	if _, err = u.ctrlC(ctx); err != nil {
		return "", err
	}
	stopped, stoppedFiles, err := search(needles, u.storeDir(), backup)
	if err != nil {
		return "", err
	}
	inControl, _, err := search(needles, control)
	return fmt.Sprintf("%d files of the store and its backup, running and stopped, hold no private key, password or token, raw or in base64; the search finds %d of %d in an unsealed control file",
			liveFiles+stoppedFiles, len(inControl), len(needles)),
		errors.Join(err, judgeSearch(append(live, stopped...), inControl, liveFiles, len(needles)))
}
