# etcd's published bugs, found again in old releases by our own checker: docs/bugs.md.

REPRO_ISSUES := 13766 14370 14571 14685 15220 15271 17529 17780 18089 18667 19179 20221
REPRO_FRESH  := .cache/etcd/3.5.35/etcd .cache/etcd/3.6.16/etcd
REPRO_OLD    := 3.5.2 3.5.5 3.5.7 3.5.12 3.5.16 3.5.21
# How often each is done; raw histories are left in .cache/repro.
COUNT ?= 1
REPRO = QUORATE_REPRO=1 QUORATE_REPRO_HISTORIES='$(CURDIR)/.cache/repro' \
	go test -count $(COUNT) -timeout 90m -v ./test/repro -run

.PHONY: repro
repro: $(REPRO_FRESH) $(REPRO_OLD:%=.cache/etcd/%/etcd) ## Find etcd's published bugs again in old releases, and a lost write (minutes); COUNT=10.
	@$(REPRO) '^(TestRepro|TestDurability)$$'

repro-13766 repro-14370: .cache/etcd/3.5.2/etcd
repro-14571 repro-14685: .cache/etcd/3.5.5/etcd
repro-15220 repro-15271: .cache/etcd/3.5.7/etcd
repro-17529 repro-17780 repro-18089 repro-18667: .cache/etcd/3.5.12/etcd
repro-19179: .cache/etcd/3.5.16/etcd
repro-20221: .cache/etcd/3.5.21/etcd

.PHONY: $(REPRO_ISSUES:%=repro-%)
$(REPRO_ISSUES:%=repro-%): repro-%: $(REPRO_FRESH)
	@$(REPRO) '^TestRepro$$/^$*$$'

.PHONY: repro-durability
repro-durability: $(REPRO_FRESH) ## Take the power from a majority whose writes were acknowledged and not synced, and have the loss found.
	@$(REPRO) '^TestDurability$$'
