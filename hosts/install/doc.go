// Package install makes a machine that is reached by SSH a host of the fleet: it puts
// this program there as the agent, has it join the server, and waits until the host is
// Ready. It needs nothing on the machine but sshd, a POSIX shell and the usual tools.
//
// What it does is decided by Plan, which is pure: what the machine is like and what is
// wanted in, ordered steps out. Each step may be repeated, and leaves nothing half done
// at a path that anything runs or reads: files are written beside their place, checked,
// and renamed. So an installation that broke off is repeated as it was called, and one
// that is complete is found to need nothing.
//
// The agent runs as root. It makes the members' systemd units and cgroups, which no other
// user can.
//
// It does not read ~/.ssh/config, and knows no jump hosts and no passwords.
package install
