package policy

import "testing"

// TestBlobNames checks that names are unique and that ParseBlob inverts Name.
func TestBlobNames(t *testing.T) {
	n := 0
	for b := range Blob(20) {
		for index := -1; index < 6; index++ {
			name := b.Name(index)
			if name == "" {
				continue
			}
			n++
			if gotB, gotIndex, ok := ParseBlob(name); gotB != b || gotIndex != index || !ok {
				t.Errorf("%q is %v %d, %v, want %v %d", name, gotB, gotIndex, ok, b, index)
			}
		}
	}
	if want := 4*4 + 6; n != want {
		t.Errorf("%d names, want %d", n, want)
	}
	for _, name := range []string{"", "auth", "auth.4", "auth.-1", "auth.00", "AUTH.0", "device_serial.0", "client_cert.0"} {
		if b, index, ok := ParseBlob(name); ok {
			t.Errorf("%q is %v %d", name, b, index)
		}
	}
}
