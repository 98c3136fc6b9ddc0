// Package sim runs the runtime in a simulated world: real streams and transports on a
// network, with peers and faults that are all derived from a seed. It contains only tests.
//
// A run takes place in a synctest bubble, so its clock is virtual. Three rules make it
// reproducible on any number of cores and with any scheduling:
//
//   - Each connection, peer and program has its own source of random numbers, derived from
//     its name, so the order of draws does not matter.
//   - No two events happen at the same instant: each has its own fraction of a millisecond.
//   - What is written to a connection at one instant is one packet.
//
// docs/simulation.md describes how to run and repeat simulations.
package sim
