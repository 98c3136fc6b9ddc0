// Package sim runs the runtime in a simulated world: the real streams and transports, on a
// network, with peers and under faults that all follow from a seed. It holds tests alone.
//
// A run takes place in a bubble of package synctest, so its clock is virtual. Three rules
// make it repeat exactly, whatever the number of cores and the scheduler:
//
//   - Random numbers are forked by name: each connection, peer and program has a source
//     of its own, so it does not matter who asks first.
//   - No two events happen at the same instant: each has its own fraction of a millisecond.
//   - What is written to a connection within one instant is one packet.
//
// docs/simulation.md describes how to run and repeat simulations.
package sim
