package codegen

import "testing"

func TestGoSymbol(t *testing.T) {
	for name, want := range map[string]string{
		"get_weather": "GetWeather", "deviceId": "DeviceID", "device-id": "DeviceID", "http url": "HTTPURL", "mqtt.tls": "MQTTTLS",
		"userIDs": "UserIDs", "json2xml": "Json2xml", "identity": "Identity", "ID": "ID", "aB": "AB", "HttpApi": "HTTPAPI",
		"3d": "X3d", "日本": "X日本", "été": "Été", "": "X", "--": "X", "_id": "ID",
	} {
		if got := goSymbol("X", name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}
