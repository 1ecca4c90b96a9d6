package install

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/bytesize"
)

const (
	// spareBin and spareData are what must be free beside the program itself: the data
	// directory gets a copy of it too, which is etcd.
	spareBin  = 16 << 20
	spareData = 128 << 20
	// clockWarn is half of what etcd's own warning about peers takes; clockRefuse makes
	// certificates look expired, or not valid yet.
	clockWarn   = 500 * time.Millisecond
	clockRefuse = 5 * time.Minute
)

// plain is what may stand in scripts and units as it is.
var plain = regexp.MustCompile(`^[A-Za-z0-9._/:@\[\]-]*$`)

// hostName is what the name of an object may be.
var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// preconditions says what is in the way of an installation, all at once, and what is
// merely worth knowing. Known is the EtcdHost of that name, nil without one.
func preconditions(f *facts, o *Options, known *v1alpha1.EtcdHost) (warnings []string, err error) {
	var wrong []error
	no := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	switch {
	case f.os != "Linux":
		no("it runs %s: agents run on Linux", f.os)
	case f.platform() != o.Binary.Platform:
		no("it is %s, and %s is for %s: give --binary with a quorate for %s", f.platform(), o.Binary.Path, o.Binary.Platform, f.platform())
	}
	if len(f.missing) > 0 {
		no("it lacks %s: install the package that has it (coreutils, mawk)", strings.Join(f.missing, ", "))
	}
	if !f.systemd && !o.WithoutSystemd {
		no("no systemd runs there (process 1 is %q), so that nothing starts the agent after a boot: give --without-systemd to have it started in a session of its own, and have whatever starts services there run %s", f.init, startPath)
	}
	if !hostName.MatchString(o.Name) {
		no("it calls itself %q, which can't name a host: give --name", o.Name)
	}
	for _, err := range []error{addressed(f, o, known), room(f, o), installed(f, o)} {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	warning, off := clockVerdict(f)
	if off != nil {
		wrong = append(wrong, off)
	}
	if warning != "" {
		warnings = append(warnings, warning)
	}
	if !f.systemd && o.WithoutSystemd {
		warnings = append(warnings, "no systemd runs there: the agent does not come back by itself after a boot; have whatever starts services there run "+startPath)
	}
	if len(f.addresses) == 0 && o.Address != "" {
		warnings = append(warnings, fmt.Sprintf("neither ip nor hostname is there to tell whether %s is an address of the machine", o.Address))
	}
	if len(wrong) > 0 {
		return warnings, fmt.Errorf("%w: %s: %w", ErrUnfit, o.Target, errors.Join(wrong...))
	}
	return warnings, nil
}

// addressed checks the address that members would listen on.
func addressed(f *facts, o *Options, known *v1alpha1.EtcdHost) error {
	has := "it has " + strings.Join(f.addresses, ", ")
	switch {
	case o.Address == "":
		return fmt.Errorf("--address is missing: %s is a name, and members listen on an IP address; %s", o.Target.Host, has)
	case known != nil && known.Spec.Address != o.Address:
		return fmt.Errorf("host %s exists with the address %s, not %s: give another --name, or remove that host first (`quorate host remove %s`)",
			known.Name, known.Spec.Address, o.Address, known.Name)
	case len(f.addresses) == 0:
		return nil
	}
	want, err := netip.ParseAddr(o.Address)
	if err != nil {
		return fmt.Errorf("the address is %q: give an IP address", o.Address)
	}
	if !slices.ContainsFunc(f.addresses, func(text string) bool {
		have, err := netip.ParseAddr(text)
		return err == nil && have.WithZone("") == want.WithZone("")
	}) {
		return fmt.Errorf("%s is no address of the machine, so that no member could listen on it; %s: give one of them with --address", o.Address, has)
	}
	return nil
}

// room checks the free space. What lies on one file system is added up.
func room(f *facts, o *Options) error {
	need := map[string]int64{}
	if f.binarySHA != o.Binary.SHA256 {
		need["bin"] = o.Binary.Size + spareBin
	}
	if f.homes == 0 && !f.identity {
		need["data"] = o.Binary.Size + spareData
	}
	need["config"] = 64 << 10
	sum := map[string]int64{}
	for what, n := range need {
		sum[f.mount[what]] += n
	}
	var short []error
	for _, what := range []string{"bin", "data", "config"} {
		mount := f.mount[what]
		if want := sum[mount]; want > f.free[what] {
			sum[mount] = 0 // said once
			short = append(short, fmt.Errorf("%s has %s free, and the installation needs %s there: make room", mount, bytesize.Text(f.free[what]), bytesize.Text(want)))
		}
	}
	return errors.Join(short...)
}

// installed checks what of Quorate is there already.
func installed(f *facts, o *Options) error {
	var wrong []error
	no := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	switch {
	case f.occupied:
		no("%s is no file: move it out of the way", BinaryPath)
	case f.binarySHA != "" && f.binarySHA != o.Binary.SHA256 && f.binaryVersion == "":
		no("%s does not say that it is quorate: move it out of the way", BinaryPath)
	case newer(f.binaryVersion, o.Binary.Version) && !o.Downgrade:
		no("it has quorate %s, which is newer than %s: install with that version, or give --allow-downgrade", f.binaryVersion, o.Binary.Version)
	}
	switch {
	case o.Rejoin:
	case f.record == nil && (f.identity || f.used):
		no("an agent was started there by hand, or by `quorate up`, and %s knows another server, or this one by another name: name another directory with --host-data-dir, or give --rejoin to have it join this server as host %s", o.DataDir, o.Name)
	case f.record != nil && f.record.Server != o.ServerURL:
		no("it belongs to the server %s as host %s, not to %s: remove the host there first, or, if that is the same server or is gone, give --rejoin", f.record.Server, f.record.Host, o.ServerURL)
	case f.record != nil && f.record.Host != o.Name:
		no("it was added as host %s, not %s: give --name %s", f.record.Host, o.Name, f.record.Host)
	}
	if f.locked && f.pid == 0 {
		no("another agent runs on %s, which the installation does not know: stop it first", o.DataDir)
	}
	return errors.Join(wrong...)
}

// clockVerdict judges the offset by what can be told of it.
func clockVerdict(f *facts) (warning string, wrong error) {
	off := f.offset.Abs() - f.margin
	way := "ahead of"
	if f.offset < 0 {
		way = "behind"
	}
	text := fmt.Sprintf("its clock is %s %s this machine's (give or take %s)", f.offset.Abs().Round(time.Millisecond), way, f.margin.Round(time.Millisecond))
	switch {
	case off > clockRefuse:
		return "", fmt.Errorf("%s, so that certificates would not be valid there: set the clocks by NTP", text)
	case off > clockWarn:
		return text + ": set the clocks by NTP before clusters are placed there", nil
	}
	return "", nil
}
