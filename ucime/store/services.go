package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"
)

// Services gives the names of the services that have routes, in their order.
func (s *Store) Services() (out []string, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bRoute).Cursor()
		for k, _ := c.First(); k != nil; {
			name, _, _ := bytes.Cut(k, []byte{0})
			out = append(out, string(name))
			k, _ = c.Seek(append(bytes.Clone(name), 1)) // behind every key of it
		}
		return nil
	})
	return out, err
}
