package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet/place"
)

func hostUsageCommand(e *env) *cobra.Command {
	var by, output string
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show what members ask for and use, against what hosts have",
		Long: `Show what members ask for, what is used now, and what hosts have to give: by host,
class, zone, pool, a label of clusters (--by label=team), or a label of hosts
(--by host-label=rack).

Members of the classes Guaranteed and Burstable have what they ask for set aside:
it is held against the capacity. BestEffort members are promised more than there
is; what they ask for is shown beside. Where a host has not reported what it has,
or what is used, the table says unknown: that is not nothing.`,
		Example: `  quorate host usage
  quorate host usage --by class
  quorate host usage --by label=team
  quorate host usage --by zone -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.hostUsage(cmd, by, output)
		},
	}
	cmd.Flags().StringVar(&by, "by", place.ByHost, "what a row stands for: host, class, zone, pool, label=KEY or host-label=KEY")
	complete(cmd, "by", place.ByHost, place.ByClass, place.ByZone, place.ByPool, place.ByLabel, place.ByHostLabel)
	outputFlag(cmd, &output, placeForms...)
	return cmd
}

func (e *env) hostUsage(cmd *cobra.Command, by, form string) error {
	if err := checkOutput(cmd, form, placeForms...); err != nil {
		return err
	}
	if _, err := place.Use(nil, by); err != nil {
		return usagef(cmd, "--by is %q: use host, class, zone, pool, label=KEY or host-label=KEY", by)
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx, cancel := call(cmd.Context())
	defer cancel()
	u, err := c.Usage(ctx, by)
	if err != nil {
		return err
	}
	if form != outTable {
		return e.printValue(form, u)
	}
	g := usageGrid(&u)
	if err = g.write(e.Out, 0); err != nil {
		return err
	}
	if best := u.Total.BestEffort; !best.CPU.IsZero() || !best.Memory.IsZero() || !best.Disk.IsZero() {
		e.printf("\n+ is what BestEffort members ask for; it is not set aside\n")
	}
	return nil
}

// usageGrid is the table of usage; rows without hosts have no capacity to show.
func usageGrid(u *v1alpha1.Usage) grid {
	kind, key, labelled := strings.Cut(u.By, "=")
	hosts := u.By != place.ByClass && kind+"=" != place.ByLabel
	title := u.By
	if labelled {
		title = key
	}
	g := grid{header: []string{title}}
	if hosts && u.By != place.ByHost {
		g.header = append(g.header, "hosts")
	}
	g.header = append(g.header, "members", "cpu asked", "used", "memory asked", "used", "disk asked", "used")
	add := func(name string, r *v1alpha1.UsageRow) {
		cells := []string{name}
		if hosts && u.By != place.ByHost {
			cells = append(cells, strconv.Itoa(r.Hosts))
		}
		cells = append(cells, strconv.Itoa(r.Members))
		asked, best, used, has := place.AmountsOf(r.Requested), place.AmountsOf(r.BestEffort), place.AmountsOf(r.Used), place.AmountsOf(r.Capacity)
		for i, v := range [][4]int64{{asked.CPU, best.CPU, used.CPU, has.CPU}, {asked.Memory, best.Memory, used.Memory, has.Memory}, {asked.Disk, best.Disk, used.Disk, has.Disk}} {
			text := size(i, v[0])
			if hosts {
				text = bar(v[0], v[3]) + text + " of " + orUnknown(size(i, v[3]), v[3])
			}
			if v[1] > 0 {
				text += " +" + size(i, v[1])
			}
			cells = append(cells, text, usedText(i, v[2], r))
		}
		g.add(cells...)
	}
	for i := range u.Rows {
		add(cmp.Or(u.Rows[i].Name, "(none)"), &u.Rows[i])
	}
	if len(u.Rows) != 1 {
		add("total", &u.Total)
	}
	return g
}

// usedText is what is used: nothing where there is no member, and unknown where one does
// not say.
func usedText(i int, v int64, r *v1alpha1.UsageRow) string {
	if r.Members == 0 {
		return "0"
	}
	return orUnknown(size(i, v), v)
}

func orUnknown(text string, v int64) string {
	if v == 0 {
		return "unknown"
	}
	return text
}

// size writes an amount for people: cores of CPU, and bytes of the rest.
func size(i int, v int64) string {
	if i == 0 {
		return strconv.FormatFloat(float64(v)/1000, 'f', -1, 64)
	}
	const step = 1024
	f, unit := float64(v), 0
	units := []string{"", "Ki", "Mi", "Gi", "Ti", "Pi"}
	for f >= step && unit < len(units)-1 {
		f /= step
		unit++
	}
	text := strconv.FormatFloat(f, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + units[unit]
}

// barWidth is how many characters all of a capacity takes.
const barWidth = 10

// bar shows a part of a capacity, and more than all of it as such.
func bar(part, all int64) string {
	if all == 0 {
		return ""
	}
	percent := int(float64(part)/float64(all)*100 + 0.5)
	full := min((percent*barWidth+50)/100, barWidth)
	if part > 0 && full == 0 {
		full = 1
	}
	return fmt.Sprintf("%s%s %3d%% ", strings.Repeat("█", full), strings.Repeat("░", barWidth-full), percent)
}
