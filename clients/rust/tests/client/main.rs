//! The client over real sockets. The other end is a broker of our own that does exactly what each test wants; what a real one
//! makes of it is tested with the broker.

mod broker;
mod loss;
mod socket;
mod tls;
