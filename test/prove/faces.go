package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/quorate/quorate/store"
)

// faces lists what the issue of that name asks to be shown. What only eyes can judge
// is the pictures whose place the item console names.
func faces() []item {
	return []item{
		{"ending", "`up` ends with a tick line, a table with sizes and fsync, a warning, and lines that work; its link logs in once", 5 * time.Minute, proveEnding},
		{"readme-en", "the README's commands work word for word in a clean clone", 20 * time.Minute, proveReadme},
		{"readme-zh", "the Chinese README's commands work word for word in a clean clone", 20 * time.Minute, proveReadmeChinese},
		{"reference", "every example of the command reference runs in test/scripts, and the reference is what the commands say", 15 * time.Minute, proveReference},
		{"languages", "every task page has its Chinese twin, every word of the console its translation", 5 * time.Minute, proveLanguages},
		{"import", "imported clusters of 3.4, 3.5, 3.6 and 3.7, plain, TLS, mTLS and auth: each fault its own message within 5 s, the others unaffected", 25 * time.Minute, proveImport},
		{"doctor", "clusters made sick in each way that doctor claims to see: found, ranked, with a fix; silence on a healthy one; nothing written", 25 * time.Minute, proveDoctor},
		{"console", "in headless Chromium: log in, create, kill the leader and see it heal, suspend, resume, logs, import; every page in both themes, languages and widths", 25 * time.Minute, proveConsole},
		{"console-1000", "a fleet of 1,000 clusters is interactive within 1 s", 15 * time.Minute, proveConsoleThousand},
		{"speed", "1,000 objects: `quorate get` within 200 ms, a change reaches a watcher within 100 ms", 10 * time.Minute, proveSpeed},
		{"safety", "no route answers without a token; other sites, path traversal, oversized bodies, slow clients, hostile names", 15 * time.Minute, proveSafety},
		{"openapi", "/openapi.json is valid, complete, and tells the truth", 10 * time.Minute, proveOpenAPI},
		{"dist", "`make dist`: static linux amd64 and arm64, deb, rpm, SHA256SUMS, shell completions; each unpacked and run", 30 * time.Minute, proveDist},
		{"skew", "server and agent one version apart work together", 15 * time.Minute, proveSkew},
		{"leave", "members run on without Quorate by what the README says", 5 * time.Minute, proveLeave},
		{"import-idle", "an idle imported cluster's revision is unchanged after 30 minutes of being watched", 40 * time.Minute, proveImportIdle},
	}
}

var (
	tickLine  = regexp.MustCompile(`(?m)^✓ playground is healthy: 3/3 members, TLS, etcd [0-9.]+, [0-9.]+ s$`)
	fsyncCell = regexp.MustCompile(`(?m)^playground-\d +(leader|follower) +https://\S+ +[0-9.]+ [KM]iB +[0-9.]+ (µs|ms)`)
)

// proveEnding reads the end of `up`, and logs in by its link. That its lines work is
// the item clone of the ground.
func proveEnding(ctx context.Context, e *env) (string, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	text := u.text()
	var errs []error
	if !tickLine.MatchString(text) {
		errs = append(errs, errors.New("there is no tick line"))
	}
	if n := len(fsyncCell.FindAllString(text, -1)); n != 3 {
		errs = append(errs, fmt.Errorf("%d rows have role, URL, size and fsync p99", n))
	}
	errs = append(errs, contains("the end of `up`", text, "CLIENT URL", "DB SIZE", "FSYNC P99", "not for production",
		"\n  Console ", "\n  Try ", "\n  Break it ", "\n  Yours ", "\n  Stop "))
	if err = errors.Join(errs...); err != nil {
		return tail(text, 2500), err
	}
	link := regexp.MustCompile(`http://\S+/login\?code=\S+`).FindString(text)
	at, err := url.Parse(link)
	if err != nil || link == "" {
		return "", fmt.Errorf("the link is %q: %w", link, err)
	}
	c, err := u.client()
	if err != nil {
		return "", err
	}
	defer c.Close()
	session, err := c.Login(ctx, at.Query().Get("code"))
	if err != nil {
		return "", fmt.Errorf("log in by the link: %w", err)
	}
	if _, err = c.Login(ctx, at.Query().Get("code")); !errors.Is(err, store.ErrForbidden) {
		return "", fmt.Errorf("the link was taken a second time: %w", err)
	}
	return fmt.Sprintf("tick line, 3 rows with db size and fsync p99, warning, Console, Try, Break it, Yours, Stop; the link logged in as %s once, and not twice", session.Role), nil
}

// tests runs go test, and wants those named to have passed and none to be skipped.
func (e *env) tests(ctx context.Context, more []string, packages, run string, least int, wanted ...string) (string, error) {
	args := append(strings.Fields(packages), "-count=1", "-timeout=25m")
	if run != "" {
		args = append(args, "-run", run)
	}
	began := time.Now()
	t, err := e.goTest(ctx, more, args...)
	if err == nil {
		err = t.judge(least, false, wanted...)
	}
	return fmt.Sprintf("%s: %d tests passed, %d failed, %d skipped in %.0f s", packages, len(t.passed), len(t.failed), len(t.skipped), time.Since(began).Seconds()), err
}

// releases builds the other etcds, and names their place to the tests.
func (e *env) releases(ctx context.Context) ([]string, error) {
	_, err := output(command(ctx, e.repo, nil, "make", "etcd-releases", "etcd-debian"))
	return []string{"QUORATE_ETCD_RELEASES=" + filepath.Join(e.repo, ".cache", "etcd")}, err
}

func proveReference(ctx context.Context, e *env) (string, error) {
	a, err := e.tests(ctx, nil, "./cli", "TestReference", 2, "TestReference")
	if err != nil {
		return a, err
	}
	b, err := e.tests(ctx, nil, "./test/scripts", "", 15, "TestReferenceRuns", "TestScripts")
	return a + "; " + b, err
}

func proveLanguages(ctx context.Context, e *env) (string, error) {
	a, err := e.tests(ctx, nil, ".", "TestDocs", 3, "TestDocsTwins", "TestDocsTwinViolations")
	if err != nil {
		return a, err
	}
	b, err := e.tests(ctx, nil, "./server/web", "TestCatalogsAgree|TestWordsAreUsed|TestTemplatesHoldNoWords", 3, "TestCatalogsAgree", "TestWordsAreUsed", "TestTemplatesHoldNoWords")
	return a + "; " + b, err
}

func proveImport(ctx context.Context, e *env) (string, error) {
	more, err := e.releases(ctx)
	if err != nil {
		return "", err
	}
	return e.tests(ctx, more, "./test/e2e", "TestImported|TestOlderEtcdImported", 20, "TestImported", "TestOlderEtcdImported")
}

func proveDoctor(ctx context.Context, e *env) (string, error) {
	more, err := e.releases(ctx)
	if err != nil {
		return "", err
	}
	seen, err := e.tests(ctx, more, "./inspect", "", 100, "TestHealthy", "TestMemberDown", "TestNoQuorum", "TestBlackHole", "TestNoSpace",
		"TestCertificates", "TestAuth", "TestMembership", "TestDifferentClusters", "TestHistory", "TestUnderLoad", "TestClock", "TestSlowReads", "TestCorrupt", "TestSizesDiffer",
		"TestLeaderChanges", "TestCutOff", "TestSlowDisk", "TestOlderEtcd", "TestOlderEtcdMixed", "TestOlderEtcdBugs")
	if err != nil {
		return seen, err
	}
	page, err := os.ReadFile(filepath.Join(e.repo, "docs", "doctor.md"))
	if err != nil {
		return seen, err
	}
	var tests []byte
	// The tests on real clusters; the others know tables.
	files, err := filepath.Glob(filepath.Join(e.repo, "inspect", "sick*_test.go"))
	if err != nil {
		return seen, err
	}
	for _, file := range append(files, filepath.Join(e.repo, "inspect", "older_test.go")) {
		raw, readErr := os.ReadFile(file)
		if readErr != nil {
			return seen, readErr
		}
		tests = append(tests, raw...)
	}
	return seen, judgeFindings(string(page), string(tests))
}

var findingHeading = regexp.MustCompile(`(?m)^#+ +([a-z][a-z0-9-]+)$`)

// judgeFindings wants every finding of the page to be named by a test that makes a
// real cluster sick: what only tables know has not been shown.
func judgeFindings(page, tests string) error {
	all := findingHeading.FindAllStringSubmatch(page, -1)
	if len(all) == 0 {
		return errors.New("the page names no finding")
	}
	var missing []string
	for _, m := range all {
		if !strings.Contains(tests, `"`+m[1]+`"`) {
			missing = append(missing, m[1])
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d of %d findings were not shown on a real etcd: %s", len(missing), len(all), strings.Join(missing, ", "))
	}
	return nil
}

func proveConsole(ctx context.Context, e *env) (string, error) {
	dir := filepath.Join(e.repo, ".cache", "screenshots")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	seen, err := e.tests(ctx, []string{"QUORATE_SCREENSHOTS=" + dir}, "./test/browser", "TestConsole", 1, "TestConsole")
	pictures, globErr := filepath.Glob(filepath.Join(dir, "*.png"))
	if len(pictures) < 80 {
		globErr = errors.Join(globErr, fmt.Errorf("only %d pictures were made", len(pictures)))
	}
	return fmt.Sprintf("%s; for eyes to judge: %d pictures in .cache/screenshots", seen, len(pictures)), errors.Join(err, globErr)
}

func proveConsoleThousand(ctx context.Context, e *env) (string, error) {
	dir, err := e.mkdir("screenshots")
	if err != nil {
		return "", err
	}
	return e.tests(ctx, []string{"QUORATE_SCREENSHOTS=" + dir}, "./test/browser", "TestThousandClusters", 1, "TestThousandClusters")
}

func proveSafety(ctx context.Context, e *env) (string, error) {
	a, err := e.tests(ctx, nil, "./server", "TestNoRouteWithoutToken|TestOtherSites|TestOversized|TestStrangePaths|TestSlowClients|TestTraversal|TestBodies|TestAuthentication", 8,
		"TestNoRouteWithoutToken", "TestOtherSites", "TestOversized", "TestStrangePaths", "TestSlowClients")
	if err != nil {
		return a, err
	}
	b, err := e.tests(ctx, nil, "./server/web", "TestPages|TestEveryPageNeedsASession|TestOtherSites|TestNextStaysHere|TestStatic|TestViewerMayOnlyLook", 6,
		"TestPages", "TestEveryPageNeedsASession", "TestOtherSites", "TestStatic")
	return a + "; " + b, err
}

func proveOpenAPI(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./server", "TestOpenAPI|TestDocsPage", 4, "TestOpenAPIIsValid", "TestOpenAPIIsComplete", "TestOpenAPITellsTheTruth")
}
