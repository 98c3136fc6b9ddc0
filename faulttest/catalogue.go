package faulttest

import "slices"

// catalogue holds all faults, by family.
var catalogue = slices.Concat(networkFaults, linkFaults, tlsFaults, httpFaults, wsFaults, mqttFaults)
