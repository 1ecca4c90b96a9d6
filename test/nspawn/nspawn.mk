# A Debian with systemd, which tests boot as machines: made once, in one to three minutes.

NSPAWN_BASE := $(CURDIR)/.cache/nspawn/base
NSPAWN_KEY  := $(shell cksum < test/nspawn/base.sh | cut -d' ' -f1)

.PHONY: nspawn-base
nspawn-base: $(NSPAWN_BASE)-$(NSPAWN_KEY)/etc/machine-id ## Make the Debian that tests boot with systemd-nspawn; needs root and debootstrap.
$(NSPAWN_BASE)-$(NSPAWN_KEY)/etc/machine-id:
	@test/nspawn/base.sh '$(NSPAWN_BASE)-$(NSPAWN_KEY)'
	@ln -sfn 'base-$(NSPAWN_KEY)' '$(NSPAWN_BASE)'
