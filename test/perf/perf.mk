# Side by side with peers, which are built from their modules into .cache/peers.

PAIRS ?= 5
# A file for all that was measured.
JSON  ?=

.PHONY: perf
perf: ## Compare with a peer, side by side; ONLY=bench-put PAIRS=9 JSON=put.json, and without ONLY the list.
	@go run ./test/perf $(if $(ONLY),-pairs $(PAIRS) $(if $(JSON),-json '$(JSON)') '$(ONLY)',list)
