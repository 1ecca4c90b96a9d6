# The S3 server that tests run against, built from its own module: once, in one to four minutes.

S3SERVER     := $(CURDIR)/.cache/s3/versitygw
S3SERVER_KEY := $(shell { go env GOVERSION; cat tools/s3/go.mod tools/s3/go.sum; } | cksum | cut -d' ' -f1)

.PHONY: s3-server
s3-server: $(S3SERVER)-$(S3SERVER_KEY) ## Build the S3 server that the tests of backup run against.
$(S3SERVER)-$(S3SERVER_KEY):
	@echo "Building versitygw (once; it takes minutes)"
	@mkdir -p $(@D)
	@cd tools/s3 && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ github.com/versity/versitygw/cmd/versitygw
	@ln -sfn $(@F) $(S3SERVER)
