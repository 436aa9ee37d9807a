//! Who sits where: a scenario's shape as seats (connections), rooms and publishers. Pure.

use crate::scenario::Shape;

/// A connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seat {
    /// Rooms that it subscribes to.
    pub(crate) rooms: Vec<u32>,
    /// It stops reading when the measurement begins, and nothing is expected of it.
    pub(crate) stalled: bool,
}

/// A connection's publishing to one room. Each numbers its own messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publisher {
    pub(crate) seat: u32,
    pub(crate) room: u32,
    /// Its place among the room's publishers.
    pub(crate) place: u32,
    /// The publisher that answers each of its messages.
    pub(crate) answered_by: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    pub(crate) publishers: Vec<u32>,
    /// Seats that receive its messages; stalled ones do not count.
    pub(crate) receivers: u32,
}

/// Which receipts are a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measured {
    /// Each.
    Everyone,
    /// Only an answer, by the seat that asked.
    Asker,
}

#[derive(Clone, Debug)]
pub(crate) struct Topology {
    pub(crate) seats: Vec<Seat>,
    pub(crate) rooms: Vec<Room>,
    pub(crate) publishers: Vec<Publisher>,
    /// The first so many publishers follow the schedule; the others answer.
    pub(crate) scheduled: u32,
    pub(crate) measured: Measured,
}

impl Topology {
    pub(crate) fn new(shape: &Shape) -> Self {
        match *shape {
            Shape::Fanout { subscribers } => Self::fanout(subscribers, 0),
            Shape::Slow {
                subscribers, stalled, ..
            } => Self::fanout(subscribers, stalled),
            Shape::Rooms { rooms, members }
            | Shape::Noisy { rooms, members, .. }
            | Shape::Growth { rooms, members, .. }
            | Shape::Devices { rooms, members, .. } => {
                // The members of a room are far from each other, so that consecutive messages go to different rooms.
                let seats = (0..rooms * members).map(|seat| vec![seat % rooms]).collect();
                let publishers = (0..rooms * members).map(|seat| (seat, seat % rooms)).collect();
                Self::build(seats, publishers, rooms)
            }
            Shape::Soak {
                rooms, subscribers, ..
            } => {
                // Those who publish stay; those who come and go publish nothing.
                let publish = (0..rooms).map(|_| Vec::new());
                let listen = (0..rooms * subscribers).map(|seat| vec![seat % rooms]);
                let seats = publish.chain(listen).collect();
                Self::build(seats, (0..rooms).map(|room| (room, room)).collect(), rooms)
            }
            Shape::Pairs { connections } => {
                // A room is its subscriber's; the neighbour publishes to it.
                let seats = (0..connections).map(|seat| vec![seat]).collect();
                let publishers = (0..connections).map(|seat| (seat, seat ^ 1)).collect();
                Self::build(seats, publishers, connections)
            }
            Shape::Echo { pairs } => {
                let seats = (0..2 * pairs).map(|seat| vec![seat % pairs]).collect();
                let publishers = (0..2 * pairs).map(|seat| (seat, seat % pairs)).collect();
                let mut topology = Self::build(seats, publishers, pairs);
                topology.scheduled = pairs;
                topology.measured = Measured::Asker;
                for asker in 0..pairs {
                    topology.publishers[asker as usize].answered_by = Some(asker + pairs);
                }
                topology
            }
            Shape::Storm {
                connections,
                room_size,
                ..
            } => {
                let rooms = connections.div_ceil(room_size);
                let mut seats: Vec<_> = (0..connections).map(|seat| vec![seat / room_size]).collect();
                // One more publishes what the others miss.
                seats.push(Vec::new());
                let publishers = (0..rooms).map(|room| (connections, room)).collect();
                Self::build(seats, publishers, rooms)
            }
            Shape::Idle {
                ref connections,
                room_size,
                ..
            } => {
                let connections = connections.iter().copied().max().unwrap_or(0);
                let seats = (0..connections).map(|seat| vec![seat / room_size]).collect();
                Self::build(seats, Vec::new(), connections.div_ceil(room_size))
            }
        }
    }

    /// Connections that publish nothing, with so many rooms shared out among them; where there are fewer rooms than connections, several have
    /// joined the same.
    pub(crate) fn crowd(connections: u32, rooms: u32) -> Self {
        let rooms = rooms.max(1);
        let seats = (0..connections).map(|seat| match seat < rooms {
            true => (seat..rooms).step_by(connections as usize).collect(),
            false => vec![seat % rooms],
        });
        Self::build(seats.collect(), Vec::new(), rooms)
    }

    fn fanout(subscribers: u32, stalled: u32) -> Self {
        let seats = std::iter::once(Vec::new())
            .chain((0..subscribers).map(|_| vec![0]))
            .collect();
        let mut topology = Self::build(seats, vec![(0, 0)], 1);
        for seat in topology.seats.iter_mut().rev().take(stalled as usize) {
            seat.stalled = true;
        }
        topology.rooms[0].receivers -= stalled;
        topology
    }

    fn build(seats: Vec<Vec<u32>>, publishers: Vec<(u32, u32)>, rooms: u32) -> Self {
        let mut rooms = vec![Room::default(); rooms as usize];
        for room in seats.iter().flatten() {
            rooms[*room as usize].receivers += 1;
        }
        let mut build = Vec::with_capacity(publishers.len());
        for (index, (seat, room)) in publishers.into_iter().enumerate() {
            let among = &mut rooms[room as usize].publishers;
            build.push(Publisher {
                seat,
                room,
                place: among.len() as u32,
                answered_by: None,
            });
            among.push(index as u32);
        }
        Self {
            seats: seats
                .into_iter()
                .map(|rooms| Seat {
                    rooms,
                    stalled: false,
                })
                .collect(),
            rooms,
            scheduled: build.len() as u32,
            publishers: build,
            measured: Measured::Everyone,
        }
    }

    pub(crate) fn receivers(&self, publisher: u32) -> u32 {
        self.rooms[self.publishers[publisher as usize].room as usize].receivers
    }

    /// How many receipts must come before a message has arrived, as a closed loop counts it.
    pub(crate) fn receipts_to_finish(&self, publisher: u32) -> u32 {
        match self.measured {
            Measured::Everyone => self.receivers(publisher),
            Measured::Asker => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fanout_has_one_publisher_that_does_not_subscribe() {
        let t = Topology::new(&Shape::Fanout { subscribers: 5 });
        assert_eq!((t.seats.len(), t.publishers.len(), t.receivers(0)), (6, 1, 5));
        assert!(t.seats[0].rooms.is_empty());
    }

    #[test]
    fn in_rooms_every_member_reaches_every_member() {
        let t = Topology::new(&Shape::Rooms { rooms: 3, members: 4 });
        assert_eq!((t.seats.len(), t.publishers.len(), t.scheduled), (12, 12, 12));
        for publisher in 0..12 {
            assert_eq!(t.receivers(publisher), 4);
        }
        let rooms: Vec<_> = t.publishers[..4].iter().map(|p| p.room).collect();
        assert_eq!(rooms, [0, 1, 2, 0]);
    }

    #[test]
    fn a_crowd_has_joined_every_room_and_publishes_nothing() {
        for (connections, rooms) in [(3, 10), (10, 3), (5, 5), (1, 1)] {
            let t = Topology::crowd(connections, rooms);
            assert_eq!(t.seats.len(), connections as usize);
            assert!(
                t.rooms.iter().all(|room| room.receivers > 0),
                "{connections} {rooms}"
            );
            assert!(t.seats.iter().all(|seat| !seat.rooms.is_empty()));
            assert!(t.publishers.is_empty());
        }
    }

    #[test]
    fn in_a_soak_nobody_who_listens_publishes() {
        let t = Topology::new(&Shape::Soak {
            rooms: 3,
            subscribers: 4,
            churn_per_second: 1.0,
        });
        assert_eq!((t.seats.len(), t.publishers.len(), t.receivers(2)), (15, 3, 4));
        assert!(
            t.publishers
                .iter()
                .all(|p| t.seats[p.seat as usize].rooms.is_empty())
        );
    }

    #[test]
    fn in_pairs_each_message_reaches_the_other_alone() {
        let t = Topology::new(&Shape::Pairs { connections: 6 });
        for publisher in &t.publishers {
            let listeners: Vec<_> = (0..6u32)
                .filter(|s| t.seats[*s as usize].rooms == [publisher.room])
                .collect();
            assert_eq!(listeners, [publisher.seat ^ 1]);
        }
    }

    #[test]
    fn an_echo_is_answered_in_the_same_room_by_the_other() {
        let t = Topology::new(&Shape::Echo { pairs: 3 });
        assert_eq!((t.scheduled, t.publishers.len()), (3, 6));
        for asker in &t.publishers[..3] {
            let other = &t.publishers[asker.answered_by.unwrap() as usize];
            assert_eq!(other.room, asker.room);
            assert_ne!(other.seat, asker.seat);
            assert_eq!(other.answered_by, None);
        }
    }

    #[test]
    fn nothing_is_expected_of_those_who_stop_reading() {
        let t = Topology::new(&Shape::Slow {
            subscribers: 10,
            stalled: 2,
            turns: 1,
        });
        assert_eq!(t.receivers(0), 8);
        assert_eq!(t.seats.iter().filter(|s| s.stalled).count(), 2);
    }

    #[test]
    fn the_last_room_of_a_storm_may_be_smaller() {
        let t = Topology::new(&Shape::Storm {
            connections: 25,
            room_size: 10,
            in_flight: 1,
            missed: 1,
        });
        let receivers: Vec<_> = t.rooms.iter().map(|r| r.receivers).collect();
        assert_eq!(receivers, [10, 10, 5]);
        assert!(t.publishers.iter().all(|p| p.seat == 25));
    }
}
