package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quorate/quorate/app"
)

var update = flag.Bool("update", false, "write docs/reference from the commands")

// referenceDir holds a page for each command.
const referenceDir = "../docs/reference"

// TestReference: docs/reference says what the commands say. `make docs` writes it.
func TestReference(t *testing.T) {
	want := reference(Root())
	if *update {
		if err := os.RemoveAll(referenceDir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(referenceDir, 0o750); err != nil {
			t.Fatal(err)
		}
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(referenceDir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(referenceDir)
	if err != nil {
		t.Fatalf("%v: run make docs", err)
	}
	got := map[string]string{}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(referenceDir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = string(raw)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run make docs (-from the commands +in docs/reference):\n%s", diff)
	}
}

// TestReferenceIsDeterministic: two trees make the same pages, whoever runs it.
func TestReferenceIsDeterministic(t *testing.T) {
	one := reference(Root())
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	if diff := cmp.Diff(one, reference(Root())); diff != "" {
		t.Error(diff)
	}
	for name, text := range one {
		if strings.Contains(text, app.DefaultDataDir()+")") || strings.Contains(text, "\n\n\n") || !strings.HasSuffix(text, "\n") {
			t.Errorf("%s holds this machine's directory, or ends or begins with empty lines", name)
		}
	}
}

// reference is the page of each command, by the name of its file, and an index.
func reference(root *cobra.Command) map[string]string {
	pages := map[string]string{"README.md": indexPage(root)}
	walk(root, func(c *cobra.Command) {
		if c != root && isDocumented(c) {
			pages[pageName(c)] = page(c)
		}
	})
	return pages
}

func isDocumented(c *cobra.Command) bool {
	return (c.IsAvailableCommand() || c.Hidden && c.Runnable()) && !c.IsAdditionalHelpTopicCommand() && !strings.HasPrefix(c.Name(), "__")
}

func pageName(c *cobra.Command) string {
	return strings.ReplaceAll(strings.TrimPrefix(c.CommandPath(), "quorate "), " ", "-") + ".md"
}

const generated = "<!-- Written by `make docs` from the commands themselves: change those. -->\n\n"

func indexPage(root *cobra.Command) string {
	var out strings.Builder
	out.WriteString("# The command line\n\n" + generated + prose(root.Long) + "\n")
	for _, g := range root.Groups() {
		fmt.Fprintf(&out, "\n## %s\n\n| command | what it does |\n| --- | --- |\n", strings.TrimSuffix(g.Title, ":"))
		var rows []string
		walk(root, func(c *cobra.Command) {
			top := c
			for top.HasParent() && top.Parent() != root {
				top = top.Parent()
			}
			if c == root || !isDocumented(c) || c.Hidden || top.GroupID != g.ID {
				return
			}
			rows = append(rows, commandRow(c))
		})
		out.WriteString(sorted(rows))
	}
	out.WriteString("\n## Flags of every command\n\n" + flagTable(root.PersistentFlags()))
	intro, rest, _ := strings.Cut(exitCodesText, "\n\n")
	codes, rest, _ := strings.Cut(rest, "\n\n")
	out.WriteString("\n## Exit codes\n\n" + intro + "\n\n| code | meaning |\n| --- | --- |\n")
	// A meaning may go on in the next line, deeper than any code.
	for line := range strings.Lines(strings.ReplaceAll(codes, "\n     ", " ")) {
		code, meaning, _ := strings.Cut(strings.TrimSpace(line), "  ")
		fmt.Fprintf(&out, "| %s | %s |\n", code, cell(meaning))
	}
	out.WriteString("\n" + rest + "\n\n## Variables\n\n| variable | what it stands for |\n| --- | --- |\n")
	for _, v := range [][2]string{
		{envDataDir, "`--data-dir`"},
		{envServer, "`--server`"},
		{envToken, "the token itself, in place of `--token-file`"},
		{envCAFile, "`--ca-file`"},
		{editors[0], "the editor of `quorate edit`, before `VISUAL` and `EDITOR`"},
		{"NO_COLOR", "if set, nothing is coloured"},
	} {
		fmt.Fprintf(&out, "| `%s` | %s |\n", v[0], v[1])
	}
	return out.String()
}

func page(c *cobra.Command) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# %s\n\n%s%s.\n\n```\n%s\n```\n\n%s\n", c.CommandPath(), generated, c.Short, c.UseLine(), prose(c.Long))
	if c.Example != "" {
		lines := make([]string, 0, 4)
		for line := range strings.Lines(c.Example) {
			lines = append(lines, strings.TrimSpace(line))
		}
		fmt.Fprintf(&out, "\n## Examples\n\n```\n%s\n```\n", strings.Join(lines, "\n"))
	}
	if subs := slices.DeleteFunc(c.Commands(), func(s *cobra.Command) bool { return !isDocumented(s) }); len(subs) > 0 {
		out.WriteString("\n## Commands\n\n| command | what it does |\n| --- | --- |\n")
		rows := make([]string, 0, len(subs))
		for _, s := range subs {
			rows = append(rows, commandRow(s))
		}
		out.WriteString(sorted(rows))
	}
	c.InitDefaultHelpFlag()
	if c.LocalNonPersistentFlags().HasAvailableFlags() && !c.DisableFlagParsing {
		out.WriteString("\n## Flags\n\n" + flagTable(c.LocalNonPersistentFlags()))
	}
	out.WriteString("\n[Flags of every command](README.md#flags-of-every-command), [exit codes](README.md#exit-codes)")
	if p := c.Parent(); p != nil && p.HasParent() {
		fmt.Fprintf(&out, ", [%s](%s)", p.CommandPath(), pageName(p))
	}
	out.WriteString("\n")
	return out.String()
}

func commandRow(c *cobra.Command) string {
	return fmt.Sprintf("| [%s](%s) | %s |\n", c.CommandPath(), pageName(c), cell(c.Short))
}

// sorted puts rows in order: whether cobra does depends on what ran before.
func sorted(rows []string) string {
	slices.Sort(rows)
	return strings.Join(rows, "")
}

func flagTable(flags *pflag.FlagSet) string {
	var out strings.Builder
	out.WriteString("| flag | default | what it does |\n| --- | --- | --- |\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		def := ""
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" {
			def = "`" + f.DefValue + "`"
		}
		// It depends on who runs this, and where.
		usage := strings.ReplaceAll(f.Usage, app.DefaultDataDir(), "/var/lib/quorate for root, else quorate in $XDG_DATA_HOME or ~/.local/share")
		fmt.Fprintf(&out, "| %s | %s | %s |\n", name, def, cell(usage))
	})
	return out.String()
}

var quotedCommand = regexp.MustCompile(`"(quorate [^"]+)"`)

// prose is a help text as Markdown: what is indented is a block, and commands in
// quotes are code.
func prose(text string) string {
	var out strings.Builder
	block := false
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		line = strings.TrimRight(line, "\n")
		if indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t"); indented != block && line != "" {
			out.WriteString("```\n")
			block = indented
		}
		if !block {
			line = strings.NewReplacer("<", "&lt;", "*", `\*`).Replace(quotedCommand.ReplaceAllString(line, "`$1`"))
		}
		out.WriteString(line + "\n")
	}
	if block {
		out.WriteString("```\n")
	}
	return strings.TrimRight(out.String(), "\n")
}

func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "\n", " ").Replace(text)
}
