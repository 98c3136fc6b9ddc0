package signing_test

import (
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/secure-streams/sspolicy/runtime/signing"
)

// A server signs two policies, and a device accepts them in this order alone.
func Example() {
	key, err := signing.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	now := time.Date(2027, time.March, 1, 12, 0, 0, 0, time.UTC)
	sign := func(policy string, version uint64) []byte {
		m := signing.NewManifest([]byte(policy))
		m.Product, m.Version, m.IssuedAt, m.NotAfter = "station", version, now, now.AddDate(0, 3, 0)
		line, err := m.Sign(key)
		if err != nil {
			log.Fatal(err)
		}
		return []byte(line)
	}
	first, second := sign(`{"release":"1"}`, 1), sign(`{"release":"2"}`, 2)

	device, err := signing.New(signing.Config{Product: "station", Keys: []signing.PublicKey{key.Public()}})
	if err != nil {
		log.Fatal(err)
	}
	next, err := device.Accept(second, now)
	if err != nil {
		log.Fatal(err)
	}
	m, _ := next.Manifest()
	fmt.Println("version", m.Version, "good:", m.Check([]byte(`{"release":"2"}`)) == nil)
	_, err = next.Accept(first, now)
	fmt.Println(err, errors.Is(err, signing.ErrRollback))
	// Output:
	// version 2 good: true
	// older than the accepted one: version 1, and 2 was accepted true
}
