package etcd

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/internal/atomicfile"
)

// Errors of the keyring. Test with errors.Is.
var (
	// ErrNoKey: what is to be opened was sealed with a key that the keyring lacks.
	ErrNoKey = errors.New("the sealing key is missing")
	// ErrSealBroken: the sealed bytes are not what was sealed, or were moved here
	// from another object.
	ErrSealBroken = errors.New("the sealed data was altered")
)

const (
	keyringFormat = 1
	keyBytes      = 32
	keyringPerm   = 0o600
)

// Keyring holds the keys that Secrets are sealed with in the store. The first key
// seals; every key opens. It is one JSON file of mode 0600 that must be kept apart
// from backups of the store: whoever has both has every Secret. Its methods are
// safe for concurrent use.
type Keyring struct {
	path string

	// sealing is held for reading from the choice of a key until what it sealed is
	// stored, and for writing while the primary key changes: so a rotation that has
	// changed it knows that no write with the old one is still to come.
	sealing sync.RWMutex

	mu   sync.Mutex
	keys []sealingKey
}

type keyringFile struct {
	Format int          `json:"format"`
	Keys   []sealingKey `json:"keys"`
}

type sealingKey struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Key     []byte    `json:"key"`
}

// sealed is what stands in the store in place of what was sealed.
type sealed struct {
	KeyID string `json:"keyID"`
	Nonce []byte `json:"nonce"`
	Data  []byte `json:"data"`
}

// CreateKeyring makes a keyring with one new key at path, with mode 0600. It
// returns an error that is fs.ErrExist when there is a file already, and leaves it.
func CreateKeyring(path string, now time.Time) (*Keyring, error) {
	key, err := newSealingKey(now)
	if err != nil {
		return nil, err
	}
	k := &Keyring{path: path}
	raw, err := encodeKeyring([]sealingKey{key})
	if err != nil {
		return nil, err
	}
	// The whole file is made first and then linked to its name, which fails if the
	// name is taken: no other keyring is ever overwritten, and no half of one is left.
	tmp := path + ".new-" + key.ID
	if err := atomicfile.Write(tmp, raw, keyringPerm); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	if err := errors.Join(os.Link(tmp, path), os.Remove(tmp)); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	k.keys = []sealingKey{key}
	return k, nil
}

// OpenKeyring reads the keyring at path. It refuses a file that others than its
// owner can read or write.
func OpenKeyring(path string) (*Keyring, error) {
	keys, err := readKeyring(path)
	if err != nil {
		return nil, err
	}
	return &Keyring{path: path, keys: keys}, nil
}

// MergeKeyring adds the keys of the keyring at from to the one at into, which is
// made if there is none: what either opened is opened then. The key that seals
// stays the one of into.
func MergeKeyring(into, from string) error {
	theirs, err := OpenKeyring(from)
	if err != nil {
		return err
	}
	ours, err := OpenKeyring(into)
	if errors.Is(err, fs.ErrNotExist) {
		ours, err = &Keyring{path: into}, nil
	}
	if err != nil {
		return err
	}
	keys := slices.Clone(ours.keys)
	for _, key := range theirs.keys {
		if !slices.ContainsFunc(keys, func(k sealingKey) bool { return k.ID == key.ID }) {
			keys = append(keys, key)
		}
	}
	if len(keys) == len(ours.keys) {
		return nil
	}
	return ours.write(keys)
}

// Path is where the keyring's file is.
func (k *Keyring) Path() string { return k.path }

// IDs names the keys, the one that seals first.
func (k *Keyring) IDs() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := make([]string, 0, len(k.keys))
	for _, key := range k.keys {
		ids = append(ids, key.ID)
	}
	return ids
}

// seal seals plaintext with the primary key, bound to the additional data.
func (k *Keyring) seal(plaintext, additional []byte) (sealed, error) {
	k.mu.Lock()
	primary := k.keys[0]
	k.mu.Unlock()
	aead, err := primary.aead()
	if err != nil {
		return sealed{}, err
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return sealed{}, fmt.Errorf("seal: %w", err)
	}
	return sealed{KeyID: primary.ID, Nonce: nonce, Data: aead.Seal(nil, nonce, plaintext, additional)}, nil
}

// open opens what seal sealed with the same additional data. ErrNoKey, or
// ErrSealBroken.
func (k *Keyring) open(s sealed, additional []byte) ([]byte, error) {
	key, err := k.find(s.KeyID)
	if err != nil {
		return nil, err
	}
	aead, err := key.aead()
	if err != nil {
		return nil, err
	}
	if len(s.Nonce) != aead.NonceSize() {
		return nil, fmt.Errorf("%w: its nonce has %d bytes instead of %d", ErrSealBroken, len(s.Nonce), aead.NonceSize())
	}
	plaintext, err := aead.Open(nil, s.Nonce, s.Data, additional)
	if err != nil {
		return nil, fmt.Errorf("%w, or it belongs to another object (key %s of %s): restore the store from a backup", ErrSealBroken, s.KeyID, k.path)
	}
	return plaintext, nil
}

// find returns a key, and looks into the file again for one that was added there.
func (k *Keyring) find(id string) (sealingKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for reread := false; ; reread = true {
		if i := slices.IndexFunc(k.keys, func(key sealingKey) bool { return key.ID == id }); i >= 0 {
			return k.keys[i], nil
		}
		if reread {
			return sealingKey{}, k.missing(id)
		}
		keys, err := readKeyring(k.path)
		if err != nil {
			return sealingKey{}, fmt.Errorf("%w; and the file could not be read again: %w", k.missing(id), err)
		}
		k.keys = keys
	}
}

func (k *Keyring) missing(id string) error {
	return fmt.Errorf("%w: key %q is not in %s: put back the copy of that file that holds it", ErrNoKey, id, k.path)
}

// addPrimary adds a new key that seals from now on. The file is durable before
// the key is used.
func (k *Keyring) addPrimary(now time.Time) error {
	key, err := newSealingKey(now)
	if err != nil {
		return err
	}
	k.sealing.Lock()
	defer k.sealing.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.write(append([]sealingKey{key}, k.keys...))
}

// keepOnly drops every key but the primary and those in use. The keyring as it was
// is kept beside it first: backups of its time can be opened with no other.
func (k *Keyring) keepOnly(inUse map[string]bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := []sealingKey{k.keys[0]}
	for _, key := range k.keys[1:] {
		if inUse[key.ID] {
			kept = append(kept, key)
		}
	}
	if len(kept) == len(k.keys) {
		return nil
	}
	raw, err := encodeKeyring(k.keys)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(k.path+".until-"+k.keys[0].ID, raw, keyringPerm); err != nil {
		return fmt.Errorf("keep the old keyring: %w", err)
	}
	return k.write(kept)
}

func (k *Keyring) write(keys []sealingKey) error {
	raw, err := encodeKeyring(keys)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(k.path, raw, keyringPerm); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	k.keys = keys
	return nil
}

func (k sealingKey) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.Key)
	if err != nil {
		return nil, fmt.Errorf("sealing key %s: %w", k.ID, err)
	}
	return cipher.NewGCM(block)
}

func newSealingKey(now time.Time) (sealingKey, error) {
	raw := make([]byte, keyBytes+6)
	if _, err := rand.Read(raw); err != nil {
		return sealingKey{}, fmt.Errorf("new sealing key: %w", err)
	}
	return sealingKey{ID: hex.EncodeToString(raw[keyBytes:]), Created: now.UTC().Truncate(time.Second), Key: raw[:keyBytes]}, nil
}

func encodeKeyring(keys []sealingKey) ([]byte, error) {
	raw, err := json.MarshalIndent(keyringFile{Format: keyringFormat, Keys: keys}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode keyring: %w", err)
	}
	return append(raw, '\n'), nil
}

func readKeyring(path string) ([]sealingKey, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("keyring %s: %w: put back the copy that was kept apart from the store; without it no Secret can be opened", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("keyring %s can be read or changed by others (mode %04o): run `chmod 600 %s`", path, perm, path)
	}
	raw, err := os.ReadFile(path) //nolint:gosec // the caller names its own file
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return decodeKeyring(path, raw)
}

func decodeKeyring(path string, raw []byte) ([]sealingKey, error) {
	const next = "put back a good copy of the file"
	var file keyringFile
	if err := json.Unmarshal(raw, &file); err != nil {
		// The cause may quote the contents, so it is not passed on.
		return nil, fmt.Errorf("keyring %s is not valid JSON: %s", path, next)
	}
	if file.Format != keyringFormat {
		return nil, fmt.Errorf("keyring %s has format %d, and this version reads %d: use the version of quorate that wrote it", path, file.Format, keyringFormat)
	}
	if len(file.Keys) == 0 {
		return nil, fmt.Errorf("keyring %s holds no key: %s", path, next)
	}
	seen := map[string]bool{}
	for i, key := range file.Keys {
		if key.ID == "" || seen[key.ID] || len(key.Key) != keyBytes {
			return nil, fmt.Errorf("keyring %s: key number %d has no ID of its own or is not %d bytes long: %s", path, i+1, keyBytes, next)
		}
		seen[key.ID] = true
	}
	return file.Keys, nil
}
