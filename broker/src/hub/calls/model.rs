//! Random words of callers and servers against a plain model that knows what each of them may hear.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cauce_protocol::ConnectionId;
use cauce_protocol::message::MethodPattern;
use proptest::prelude::*;

use super::bounds::{ATTEMPTS_MAX, CONCURRENCY_DEFAULT};
use super::call::{CallId, Effect, Effects, Invoke, NewCall, ServerId};
use super::state::Calls;
use crate::hub::Caller;
use crate::metrics::CallEnd;

const METHODS: [&str; 4] = ["a", "ab", "abc", "b"];
const PATTERNS: [&str; 6] = ["a", "ab", "a*", "ab*", "b", "*"];
const CONNECTIONS: u64 = 3;
const PARTIES: u64 = 5;

#[derive(Clone, Debug)]
enum Word {
    Serve {
        server: u64,
        patterns: BTreeSet<usize>,
        concurrency: u32,
    },
    Unserve {
        server: u64,
        patterns: BTreeSet<usize>,
    },
    Call {
        connection: u64,
        method: usize,
        timeout_ms: u64,
        retry: bool,
    },
    /// Of any call that ever was.
    Respond {
        server: u64,
        call: prop::sample::Index,
    },
    Lose {
        server: u64,
        call: prop::sample::Index,
    },
    Cancel {
        connection: u64,
        request: prop::sample::Index,
    },
    Leave {
        party: u64,
    },
    Pass {
        ms: u64,
    },
}

fn words() -> impl Strategy<Value = Word> {
    let patterns = || prop::collection::btree_set(0..PATTERNS.len(), 1..4);
    let any_call = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..PARTIES, patterns(), 0u32..4)
            .prop_map(|(server, patterns, concurrency)| Word::Serve { server, patterns, concurrency }),
        1 => (0..PARTIES, patterns()).prop_map(|(server, patterns)| Word::Unserve { server, patterns }),
        8 => (0..CONNECTIONS, 0..METHODS.len(), 1u64..50, any::<bool>())
            .prop_map(|(connection, method, timeout_ms, retry)| Word::Call { connection, method, timeout_ms, retry }),
        6 => (0..PARTIES, any_call()).prop_map(|(server, call)| Word::Respond { server, call }),
        1 => (0..PARTIES, any_call()).prop_map(|(server, call)| Word::Lose { server, call }),
        1 => (0..CONNECTIONS, any_call()).prop_map(|(connection, request)| Word::Cancel { connection, request }),
        1 => (0..PARTIES).prop_map(|party| Word::Leave { party }),
        2 => (0u64..30).prop_map(|ms| Word::Pass { ms }),
    ]
}

fn party(n: u64) -> ServerId {
    if n < CONNECTIONS {
        ServerId::Connection(ConnectionId(n))
    } else {
        ServerId::Program(n)
    }
}

fn pattern(n: usize) -> MethodPattern {
    MethodPattern::new(PATTERNS[n]).expect("a pattern")
}

/// The narrower a pattern, the higher.
fn narrowness(pattern: &MethodPattern) -> (bool, usize) {
    match pattern {
        MethodPattern::Exactly(name) => (true, name.len()),
        MethodPattern::Prefix(prefix) => (false, prefix.len()),
    }
}

#[derive(Default)]
struct Server {
    patterns: BTreeSet<MethodPattern>,
    concurrency: usize,
    working: BTreeSet<CallId>,
}

struct Asked {
    connection: u64,
    request: u32,
    method: &'static str,
    deadline_ms: u64,
    retry: bool,
    invoked: u32,
    given: Option<ServerId>,
    ended: Option<CallEnd>,
}

#[derive(Default)]
struct Model {
    calls: Calls,
    now_ms: u64,
    servers: BTreeMap<ServerId, Server>,
    asked: BTreeMap<CallId, Asked>,
    by_request: Vec<CallId>,
}

impl Model {
    /// Who serves a method best.
    fn pool(&self, method: &str) -> Vec<ServerId> {
        let all = self.servers.values().flat_map(|server| &server.patterns);
        let Some(best) = all.filter(|p| p.matches(method)).max_by_key(|p| narrowness(p)) else {
            return Vec::new();
        };
        let serves = self.servers.iter().filter(|(_, s)| s.patterns.contains(best));
        serves.map(|(&id, _)| id).collect()
    }

    fn say(&mut self, word: Word) {
        match word {
            Word::Serve {
                server,
                patterns,
                concurrency,
            } => {
                let patterns: Vec<_> = patterns.into_iter().map(pattern).collect();
                let entry = self.servers.entry(party(server)).or_default();
                entry.patterns.extend(patterns.iter().cloned());
                entry.concurrency = if concurrency == 0 {
                    CONCURRENCY_DEFAULT
                } else {
                    concurrency
                } as usize;
                let effects = self
                    .calls
                    .serve(self.now_ms, party(server), &patterns, concurrency)
                    .expect("far below the bounds");
                self.hear(effects, None);
            }
            Word::Unserve { server, patterns } => {
                let patterns: Vec<_> = patterns.into_iter().map(pattern).collect();
                if let Some(entry) = self.servers.get_mut(&party(server)) {
                    entry.patterns.retain(|p| !patterns.contains(p));
                }
                let effects = self
                    .calls
                    .unserve(self.now_ms, party(server), |p| !patterns.contains(p));
                self.hear(effects, None);
            }
            Word::Call {
                connection,
                method,
                timeout_ms,
                retry,
            } => self.call(connection, METHODS[method], timeout_ms, retry),
            Word::Respond { server, call } => {
                let Some(call) = self.any(call) else { return };
                let may = self.asked[&call].given == Some(party(server));
                let json = Bytes::from(call.0.to_string());
                match self.calls.respond(self.now_ms, party(server), call, Ok(json)) {
                    Ok(effects) => {
                        assert!(may, "somebody else's answer was taken");
                        self.hear(effects, None);
                        assert_eq!(self.asked[&call].ended, Some(CallEnd::Answered));
                    }
                    Err(_) => assert!(!may, "an answer was refused"),
                }
            }
            Word::Lose { server, call } => {
                let Some(call) = self.any(call) else { return };
                let effects = self.calls.lose(self.now_ms, party(server), call);
                if self.asked[&call].given == Some(party(server)) {
                    self.take_back(call);
                } else {
                    assert!(effects.is_empty());
                }
                self.hear(effects, None);
            }
            Word::Cancel { connection, request } => {
                let Some(call) = self.any(request) else { return };
                let asked = &self.asked[&call];
                let may = asked.connection == connection && asked.ended.is_none();
                let request = asked.request;
                match self.calls.cancel(self.now_ms, ConnectionId(connection), request) {
                    Ok(effects) => {
                        assert!(may);
                        self.hear(effects, None);
                        assert_eq!(self.asked[&call].ended, Some(CallEnd::Cancelled));
                    }
                    Err(_) => assert!(!may),
                }
            }
            Word::Leave { party } => self.leave(party),
            Word::Pass { ms } => {
                self.now_ms += ms;
                let effects = self.calls.tick(self.now_ms);
                self.hear(effects, None);
                let over = |asked: &Asked| asked.ended.is_some() || asked.deadline_ms > self.now_ms;
                assert!(self.asked.values().all(over), "a call outlived its time");
            }
        }
    }

    fn call(&mut self, connection: u64, method: &'static str, timeout_ms: u64, retry: bool) {
        let request = self.by_request.len() as u32 + 1;
        let new = NewCall {
            caller: Caller::Connection {
                connection: ConnectionId(connection),
                request,
            },
            user: None,
            method: method.into(),
            params: Bytes::from_static(b"{}"),
            timeout_ms,
            retry,
        };
        let (call, effects) = self.calls.call(self.now_ms, request.into(), new);
        let asked = Asked {
            connection,
            request,
            method,
            deadline_ms: self.now_ms + timeout_ms,
            retry,
            invoked: 0,
            given: None,
            ended: None,
        };
        assert!(self.asked.insert(call, asked).is_none(), "ids are not used twice");
        self.by_request.push(call);
        // What must have happened follows from the pool as it was.
        let pool = self.pool(method);
        let part = |id: &ServerId| {
            let server = &self.servers[id];
            (server.working.len() < server.concurrency)
                .then(|| server.working.len() as f64 / server.concurrency as f64)
        };
        let least = pool.iter().filter_map(part).min_by(f64::total_cmp);
        match (&effects[..], least) {
            ([Effect::Answer { end, .. }], _) if pool.is_empty() => assert_eq!(*end, CallEnd::NotServed),
            ([Effect::Invoke(server, _)], Some(least)) => {
                assert!(pool.contains(server));
                assert_eq!(part(server), Some(least));
            }
            ([], None) => {}
            _ => panic!("{effects:?} with {least:?} in {pool:?}"),
        }
        self.hear(effects, None);
    }

    fn leave(&mut self, n: u64) {
        let id = party(n);
        let effects = match id {
            ServerId::Connection(connection) => self.calls.connection_left(self.now_ms, connection),
            ServerId::Program(_) => self.calls.server_left(self.now_ms, id),
        };
        let had = self
            .servers
            .get(&id)
            .map(|s| s.working.clone())
            .unwrap_or_default();
        if let Some(server) = self.servers.get_mut(&id) {
            server.patterns.clear();
        }
        self.hear(effects, Some(id));
        for call in had {
            let asked = &self.asked[&call];
            let may_go_on = asked.retry || asked.connection == n;
            assert!(may_go_on || asked.ended == Some(CallEnd::Lost));
            if asked.given == Some(id) {
                // Nobody was told anything, so it must wait for another server; the check has seen it do so.
                assert!(asked.ended.is_none());
                self.take_back(call);
            }
        }
        self.servers.remove(&id);
        let own = |asked: &Asked| asked.connection == n && id != ServerId::Program(n);
        assert!(self.asked.values().all(|a| !own(a) || a.ended.is_some()));
    }

    fn any(&self, index: prop::sample::Index) -> Option<CallId> {
        (!self.by_request.is_empty()).then(|| *index.get(&self.by_request))
    }

    fn take_back(&mut self, call: CallId) {
        let asked = self.asked.get_mut(&call).expect("a call of ours");
        if let Some(server) = asked.given.take() {
            let entry = self.servers.get_mut(&server).expect("a server of ours");
            assert!(entry.working.remove(&call));
        }
    }

    /// Believes what is heard, unless it may not be.
    fn hear(&mut self, effects: Effects, leaving: Option<ServerId>) {
        for effect in effects {
            match effect {
                Effect::Invoke(server, invoke) => self.invoked(server, &invoke, leaving),
                Effect::Revoke(server, call) => {
                    assert_eq!(
                        self.asked[&call].given,
                        Some(server),
                        "revoked where it was not given"
                    );
                    self.take_back(call);
                }
                Effect::Answer { caller, end, result } => {
                    let call = self.call_of(&caller);
                    match end {
                        CallEnd::Answered => {
                            self.take_back(call);
                            assert_eq!(result, Ok(Bytes::from(call.0.to_string())));
                        }
                        CallEnd::NotServed => assert!(self.pool(self.asked[&call].method).is_empty()),
                        CallEnd::Lost => {
                            if self.asked[&call].given == leaving {
                                self.take_back(call);
                            }
                            assert!(self.asked[&call].invoked > 0);
                        }
                        CallEnd::TimedOut => assert!(self.asked[&call].deadline_ms <= self.now_ms),
                        _ => {}
                    }
                    self.over(call, end);
                }
                Effect::Abandon(caller) => {
                    let call = self.call_of(&caller);
                    assert_eq!(leaving, Some(party(self.asked[&call].connection)));
                    self.over(call, CallEnd::Abandoned);
                }
            }
        }
        self.calls.check();
    }

    fn invoked(&mut self, server: ServerId, invoke: &Invoke, leaving: Option<ServerId>) {
        let call = invoke.call;
        assert_ne!(Some(server), leaving, "given to one who leaves");
        if leaving.is_some() && self.asked[&call].given == leaving {
            self.take_back(call);
        }
        let asked = self.asked.get_mut(&call).expect("a call of ours");
        assert!(asked.ended.is_none() && asked.given.is_none());
        asked.invoked += 1;
        asked.given = Some(server);
        assert!(asked.invoked == 1 || asked.retry && asked.invoked <= ATTEMPTS_MAX);
        assert_eq!(
            (invoke.attempt, &*invoke.method, &invoke.params[..]),
            (asked.invoked, asked.method, &b"{}"[..])
        );
        assert_eq!(self.now_ms + invoke.timeout_ms, asked.deadline_ms);
        let entry = self.servers.get_mut(&server).expect("a server of ours");
        assert!(entry.patterns.iter().any(|p| p.matches(asked.method)));
        assert!(entry.working.insert(call));
        assert!(
            entry.working.len() <= entry.concurrency,
            "more at once than it wants"
        );
    }

    fn call_of(&self, caller: &Caller) -> CallId {
        match caller {
            Caller::Connection { request, .. } => self.by_request[*request as usize - 1],
            Caller::Waiter(_) => panic!("nobody waits in this test"),
        }
    }

    fn over(&mut self, call: CallId, end: CallEnd) {
        let asked = self.asked.get_mut(&call).expect("a call of ours");
        assert_eq!(asked.given, None, "a server still works on it");
        assert_eq!(asked.ended.replace(end), None, "answered twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn each_call_is_answered_once_and_given_once_and_nothing_stays_behind(
        words in prop::collection::vec(words(), 1..120),
    ) {
        let mut model = Model::default();
        for word in words {
            model.say(word);
        }
        for party in 0..PARTIES {
            model.leave(party);
        }
        prop_assert!(model.asked.values().all(|asked| asked.ended.is_some()));
        prop_assert!(model.calls.is_empty());
    }
}
