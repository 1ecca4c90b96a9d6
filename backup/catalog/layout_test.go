package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/backup/catalog"
)

func TestNames(t *testing.T) {
	layout, err := catalog.NewLayout("backups/etcd")
	require.NoError(t, err)
	ref := catalog.Ref{Lineage: prod, Time: time.Date(2026, 11, 21, 9, 8, 7, 0, time.UTC), Revision: 1000, Nonce: "0a1b2c3d"}
	name, err := layout.Manifest(ref)
	require.NoError(t, err)
	require.Equal(t, "backups/etcd/v1/default/prod/cdf818194e3a8c32/e0001/full/20261121T090807Z-r0000000000000001000-0a1b2c3d/point.json", name)
	got, file, ok := layout.Parse(name)
	require.True(t, ok)
	require.Equal(t, "point.json", file)
	require.Equal(t, ref, got)
	require.Equal(t, "backups/etcd/v1/default/prod/", layout.ClusterPrefix(prod.Cluster))
	require.False(t, strings.HasPrefix(layout.ClusterPrefix(catalog.Cluster{Namespace: "default", Name: "prod-eu"}), layout.ClusterPrefix(prod.Cluster)))
}

func TestEscapedNames(t *testing.T) {
	for name, want := range map[string]string{
		"prod-eu.1":              "prod-eu.1",
		"":                       "__",
		"..":                     "_2e_2e",
		"a/b":                    "a_2fb",
		"Prod":                   "_50rod",
		"a_b":                    "a_5fb",
		"ü":                      "_c3_bc",
		strings.Repeat("x", 200): strings.Repeat("x", 200),
		strings.Repeat("x", 201): strings.Repeat("x", 200) + "_/x",
	} {
		require.Equal(t, "v1/__/"+want+"/", catalog.Layout{}.ClusterPrefix(catalog.Cluster{Name: name}))
	}
}

func TestForeignNames(t *testing.T) {
	const good = "v1/default/prod/cdf818194e3a8c32/e0001/full/20261121T090807Z-r0000000000000001000-0a1b2c3d/point.json"
	_, _, ok := catalog.Layout{}.Parse(good)
	require.True(t, ok)
	for _, change := range [][2]string{
		{"v1/", "v2/"},
		{"v1/", ""},
		{"v1/", "backups/v1/"},
		{"default/", ""},
		{"default/", "default//"},
		{"prod", "Prod"},
		{"prod", ".."},
		{"prod", "pro_64"},
		{"prod", "prod_"},
		{"prod", "__x"},
		{"prod", ""},
		{"prod", "prod."},
		{"cdf818194e3a8c32", "CDF818194E3A8C32"},
		{"cdf818194e3a8c32", "df818194e3a8c32"},
		{"e0001", "e1"},
		{"e0001", "e0000"},
		{"e0001", "e00001"},
		{"e0001", "0001"},
		{"e0001", "e99999999999"},
		{"full", "journal"},
		{"20261121T090807Z", "20261321T090807Z"},
		{"20261121T090807Z", "20261121T090807.5Z"},
		{"20261121T090807Z", "20261121T090807"},
		{"r0000000000000001000", "r1000"},
		{"r0000000000000001000", "r9999999999999999999"},
		{"r0000000000000001000", "r+000000000000001000"},
		{"0a1b2c3d", "0A1B2C3D"},
		{"0a1b2c3d", "0a1b2c3"},
		{"0a1b2c3d/", "0a1b2c3d/x/"},
		{"point.json", "README.md"},
		{"point.json", "point."},
		{"point.json", ""},
	} {
		name := strings.Replace(good, change[0], change[1], 1)
		require.NotEqual(t, good, name)
		_, _, ok := catalog.Layout{}.Parse(name)
		require.False(t, ok, name)
	}
}

func TestRefusedNames(t *testing.T) {
	for _, root := range []string{"/", "/a", "a/", "a//b", ".", "a/../b", strings.Repeat("x", 500)} {
		_, err := catalog.NewLayout(root)
		require.ErrorIs(t, err, catalog.ErrName, root)
	}
	good := hourly(prod, 1)
	for why, change := range map[string]func(*catalog.Ref){
		"epochs begin at 1":   func(r *catalog.Ref) { r.Epoch = 0 },
		"not UTF-8":           func(r *catalog.Ref) { r.Name = "\xff" },
		"negative":            func(r *catalog.Ref) { r.Revision = -1 },
		"four digits":         func(r *catalog.Ref) { r.Time = r.Time.AddDate(9000, 0, 0) },
		"whole seconds":       func(r *catalog.Ref) { r.Time = r.Time.Add(1) },
		"hexadecimal":         func(r *catalog.Ref) { r.Nonce = "../../.." },
		"what every store":    func(r *catalog.Ref) { r.Name = strings.Repeat("x", 800) },
		"a shorter root, nam": func(r *catalog.Ref) { r.Namespace = strings.Repeat("ü", 130) },
	} {
		ref := good
		change(&ref)
		_, err := catalog.Layout{}.Dir(ref)
		require.ErrorIs(t, err, catalog.ErrName)
		require.ErrorContains(t, err, why)
	}
	for _, file := range []string{"", "x", "snapshot.", "snapshot.db/x", "../point.json", "point.json/..", "proof-" + strings.Repeat("x", 60)} {
		_, err := catalog.Layout{}.File(good, file)
		require.ErrorIs(t, err, catalog.ErrName, file)
	}
}

// TestOddNames shows that all names stay apart, on file systems that know no case too.
func TestOddNames(t *testing.T) {
	seen := map[string]string{}
	for _, ns := range odd {
		for _, name := range odd {
			ref := hourly(prod, 1)
			ref.Namespace, ref.Name = ns, name
			dir, err := catalog.Layout{}.Dir(ref)
			if err != nil {
				require.ErrorIs(t, err, catalog.ErrName)
				continue
			}
			checkName(t, ref, dir)
			key := strings.ToLower(dir)
			require.NotContains(t, seen, key, "%q and %q", name, seen[key])
			seen[key] = name
		}
	}
	require.Greater(t, len(seen), 1000)
}

func checkName(t *testing.T, ref catalog.Ref, dir string) {
	t.Helper()
	for e := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		require.NotContains(t, []string{"", ".", ".."}, e)
		require.LessOrEqual(t, len(e), 255)
		for _, c := range e {
			require.True(t, strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-._TZ", c), dir)
		}
	}
	got, file, ok := catalog.Layout{}.Parse(dir + "point.json")
	require.True(t, ok, dir)
	require.Equal(t, "point.json", file)
	require.Equal(t, ref, got)
}

func FuzzNames(f *testing.F) {
	for i, name := range odd {
		f.Add(name, odd[len(odd)-1-i], int64(i), uint64(i), uint32(i))
	}
	f.Fuzz(func(t *testing.T, ns, name string, revision int64, id uint64, epoch uint32) {
		ref := hourly(prod, 1)
		ref.Namespace, ref.Name, ref.Revision, ref.ClusterID, ref.Epoch = ns, name, revision, catalog.ID(id), epoch
		dir, err := catalog.Layout{}.Dir(ref)
		if err != nil {
			require.ErrorIs(t, err, catalog.ErrName)
			return
		}
		checkName(t, ref, dir)
	})
}

func FuzzParse(f *testing.F) {
	for _, name := range odd {
		ref := hourly(prod, 1)
		ref.Name = name
		if dir, err := (catalog.Layout{}).Dir(ref); err == nil {
			f.Add(dir + "point.json")
			f.Add(strings.Replace(dir, "e0001", "e10000", 1) + "snapshot.db")
		}
	}
	f.Fuzz(func(t *testing.T, name string) {
		ref, file, ok := catalog.Layout{}.Parse(name)
		if !ok {
			return
		}
		again, err := catalog.Layout{}.File(ref, file)
		if err != nil {
			require.ErrorContains(t, err, "every store takes") // longer than we would write
			return
		}
		require.Equal(t, name, again)
	})
}
