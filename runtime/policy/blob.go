package policy

import "strconv"

// A Blob is a kind of text that a policy requires but does not hold: a system blob
// of lws (include/libwebsockets/lws-system.h).
type Blob uint8

// Kinds of blobs. An indexed kind has four texts, with the indexes 0 to 3.
const (
	BlobAuth            Blob = iota // auth token, indexed
	BlobDeviceSerial                // serial number of the device
	BlobFirmwareVersion             // version of the firmware
	BlobDeviceType                  // type of the device
	BlobMQTTClientID                // client id for MQTT
	BlobMQTTUsername                // user name for MQTT
	BlobMQTTPassword                // password for MQTT
	BlobAWSKeyID                    // id of an AWS access key, indexed
	BlobAWSSecret                   // secret of the key with the same index, indexed
	BlobAWSSessionToken             // session token of a temporary key, indexed
)

// maxBlobs is the number of texts of an indexed kind, as in lws.
const maxBlobs = 4

// blobs holds the name of each kind in messages, and in credential sources.
var blobs = [...]struct {
	title, name string
	indexed     bool
}{
	BlobAuth:            {"auth token", "auth", true},
	BlobDeviceSerial:    {"device serial number", "device_serial", false},
	BlobFirmwareVersion: {"firmware version", "firmware_version", false},
	BlobDeviceType:      {"device type", "device_type", false},
	BlobMQTTClientID:    {"MQTT client id", "mqtt_client_id", false},
	BlobMQTTUsername:    {"MQTT user name", "mqtt_username", false},
	BlobMQTTPassword:    {"MQTT password", "mqtt_password", false},
	BlobAWSKeyID:        {"AWS key id", "aws_key_id", true},
	BlobAWSSecret:       {"AWS secret", "aws_secret", true},
	BlobAWSSessionToken: {"AWS session token", "aws_session_token", true},
}

// String returns the name of the kind for messages, such as "auth token".
func (b Blob) String() string {
	if int(b) < len(blobs) {
		return blobs[b].title
	}
	return "blob " + strconv.Itoa(int(b))
}

// Name returns the name of a text in sources of credentials: "auth.0" to "auth.3"
// for an indexed kind; "device_serial" for one that is not indexed, with index 0.
// It returns "" if there is no such text.
func (b Blob) Name(index int) string {
	switch {
	case int(b) >= len(blobs) || index < 0 || index >= maxBlobs || index > 0 && !blobs[b].indexed:
		return ""
	case blobs[b].indexed:
		return blobs[b].name + "." + strconv.Itoa(index)
	}
	return blobs[b].name
}

// ParseBlob returns the kind and index of the text with the given [Blob.Name].
func ParseBlob(name string) (b Blob, index int, ok bool) {
	for b := range blobs {
		for index := range maxBlobs {
			if Blob(b).Name(index) == name && name != "" {
				return Blob(b), index, true
			}
		}
	}
	return 0, 0, false
}
