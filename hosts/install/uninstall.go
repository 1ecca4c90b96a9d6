package install

import (
	"context"
	"fmt"
)

// Uninstall takes the agent off a machine: its unit, its program, its certificate and
// how it was installed. The data directory stays, with what was retired in it. A machine
// that still has members is refused with ErrUnfit, and nothing of it is touched. It may
// be called again.
func Uninstall(ctx context.Context, o Options) (Result, error) {
	return told(ctx, &o, uninstall)
}

func uninstall(ctx context.Context, o *Options, r *Result) error {
	defaults(o)
	if err := o.checkWords(); err != nil {
		return err
	}
	if err := remember(ctx, o); err != nil {
		return err
	}
	o.tell("connect", "connecting")
	c, err := dial(ctx, o.Target, o.Auth, o.HostKeys, o.Dial)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is under way any more
	r.HostKey = fingerprint(c.key)
	f, err := c.gather(ctx, o.DataDir)
	if err != nil {
		return err
	}
	r.Platform, r.Previous = f.platform(), f.binaryVersion
	switch {
	case f.homes > 0:
		return unfit("%s has %d members in %s/members: drain the host first (`quorate host drain NAME`)", o.Target, f.homes, o.DataDir)
	case f.record == nil && f.binarySHA == "" && f.pid == 0:
		r.Change = Unchanged
		return nil
	case f.record != nil && o.Name != "" && f.record.Host != o.Name:
		return unfit("%s was added as host %s, not %s", o.Target, f.record.Host, o.Name)
	}
	if f.record != nil {
		r.Host = f.record.Host
	}
	steps := []step{
		{"stop", "stop the agent", func(ctx context.Context) error { return c.stop(ctx, f) }},
		{"remove", fmt.Sprintf("remove %s, %s, and the certificate in %s, whose other files stay", BinaryPath, ConfigDir, o.DataDir), func(ctx context.Context) error {
			return c.remove(ctx, o.DataDir)
		}},
	}
	r.Change = Removed
	return take(ctx, o, r, steps)
}

// stop ends the agent, and has it not come back.
func (c *conn) stop(ctx context.Context, f *facts) error {
	script := prelude + `systemctl -q disable --now ` + UnitName + ` 2>/dev/null; rm -f ` + unitPath + `; systemctl daemon-reload`
	if !f.systemd {
		script = prelude + stopSession
	}
	_, err := c.asRoot(ctx, script, nil)
	return err
}

// remove removes the files of the installation by their names, and directories only
// when nothing else is in them.
func (c *conn) remove(ctx context.Context, dataDir string) error {
	_, err := c.asRoot(ctx, prelude+`rm -f `+tokenPath+` `+startPath+` `+dataDir+`/`+identityFile+` `+dataDir+`/`+joiningFile+` `+dataDir+`/`+positionFile+` `+recordPath+` `+BinaryPath+`
rmdir `+ConfigDir+` 2>/dev/null
exit 0`, nil)
	return err
}
