//! A hub that requires a proof, with the real prover and solver: what lets something new in stays
//! out, what does not comes in, and a solver that hangs harms nothing.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gateway::{Setup, binary, clean};
use crate::parts::{Daemon, skip_without};
use crate::proofs::{prover, said};

/// How long a proof of these small sets may take.
const PATIENCE: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(100);

/// The only condition of the set in force; others are put in its place.
const OFFICE: &str = "10.0.0.0/8";

/// A hub that takes bundles, and somebody who builds them.
struct Office {
    setup: Setup,
    hub: Option<Daemon>,
}

impl Office {
    /// Revision 1 is in force. The hub's prover uses this solver.
    fn new(solver: Option<&str>) -> Self {
        let mut setup = Setup::new();
        let folder = setup.folder().to_owned();
        let mut office = {
            let made = clean(&binary("nowconnect"))
                .args(["policy", "keygen", "key"])
                .current_dir(&folder)
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", said(&made).1);
            let public = std::fs::read_to_string(folder.join("key.pub")).unwrap();
            setup.config["policy"] = json!({"bundle": {
                "trusted_keys": [public.trim()],
                "state_dir": folder.join("state"),
                "require": {"proof": true},
                "auto_activate": false,
            }});
            Self { setup, hub: None }
        };
        office.start(solver);
        let first = office.bundle(1, OFFICE);
        office.policy(&["push", &first]);
        office.policy(&["activate"]);
        assert_eq!(office.active(), Some(1));
        office
    }

    fn start(&mut self, solver: Option<&str>) {
        let file = self.setup.folder().join("cloud.yaml");
        std::fs::write(&file, self.setup.config.to_string()).unwrap();
        let mut command = clean(&binary("nowconnect"));
        command
            .args(["run", "--config"])
            .arg(file)
            .env("NOWCONNECT_PROVE", prover());
        if let Some(solver) = solver {
            command.env("CVC5", solver);
        }
        let mut hub = Daemon::start("hub", &mut command, self.setup.folder());
        let socket = self.setup.folder().join("admin.sock");
        hub.wait_for("the admin socket", |_| socket.exists().then_some(()));
        self.hub = Some(hub);
    }

    /// A signed bundle that lets clients of this network reach everything.
    fn bundle(&self, revision: u64, network: &str) -> String {
        let folder = self.setup.folder().join(format!("set-{revision}"));
        std::fs::create_dir(&folder).unwrap();
        let policies = format!(
            "@id(\"joining\") permit (principal, action in NowConnect::Action::\"agent-lifecycle\", resource);\n\
             @id(\"office\") permit (principal, action == NowConnect::Action::\"open\", resource)\n\
             when {{ context.net.srcIp.isInRange(ip(\"{network}\")) }};\n"
        );
        std::fs::write(folder.join("set.cedar"), policies).unwrap();
        let tar = format!("set-{revision}.tar");
        let number = revision.to_string();
        let built = self.run(&[
            "build",
            &format!("set-{revision}"),
            "--out",
            &tar,
            "--revision",
            &number,
        ]);
        assert!(built.status.success(), "{}", said(&built).1);
        let signed = self.run(&["sign", &tar, "--key", "key"]);
        assert!(signed.status.success(), "{}", said(&signed).1);
        tar
    }

    fn run(&self, words: &[&str]) -> Output {
        clean(&binary("nowconnect"))
            .arg("policy")
            .args(words)
            .current_dir(self.setup.folder())
            .output()
            .unwrap()
    }

    /// A command to the hub; exit code and what it said.
    fn policy(&self, words: &[&str]) -> (i32, String) {
        let mut words = words.to_vec();
        words.extend(["--socket", "admin.sock"]);
        said(&self.run(&words))
    }

    fn active(&self) -> Option<u64> {
        let (exit, out) = self.policy(&["status", "--json"]);
        assert_eq!(exit, 0, "{out}");
        let status: Value = serde_json::from_str(&out).unwrap();
        status["active"]["revision"].as_u64()
    }

    /// Tries to activate until it says something else than that the proof is under way.
    fn activate(&self) -> (i32, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (exit, out) = self.policy(&["activate"]);
            if !out.contains("under way") {
                return (exit, out);
            }
            assert!(Instant::now() < deadline, "{out}");
            std::thread::sleep(PAUSE);
        }
    }
}

#[test]
fn a_hub_that_requires_a_proof_lets_in_what_is_proved_and_nothing_else() {
    if skip_without(&["cvc5"]) {
        return;
    }
    let office = Office::new(None);
    // Wider: a client that is kept out now would come in.
    let wider = office.bundle(2, "10.0.0.0/7");
    office.policy(&["push", &wider]);
    let (exit, out) = office.activate();
    assert_eq!(exit, 1, "{out}");
    assert!(
        out.contains("bundle_unproved") && out.contains("not proved to let nothing new in"),
        "{out}"
    );
    assert_eq!(office.active(), Some(1));
    // The hub's own bundles, compared from outside, say which client.
    let compared = office.policy(&["diff", "--active", "--staged"]);
    assert!(compared.1.contains("changed: `office`"), "{compared:?}");

    // Narrower, in other words: only a solver can tell that nothing new comes in.
    let narrower = office.bundle(3, "10.1.0.0/16");
    office.policy(&["push", &narrower]);
    let (exit, out) = office.activate();
    assert_eq!(exit, 0, "{out}");
    assert_eq!(office.active(), Some(3));
}

#[test]
fn a_solver_that_hangs_keeps_the_bundle_out_and_ends_with_the_hub() {
    use std::os::unix::fs::PermissionsExt as _;

    let scripts = tempfile::tempdir().unwrap();
    let (solver, pids) = (scripts.path().join("solver"), scripts.path().join("pids"));
    let script = format!("#!/bin/sh\necho $$ >>{}\nexec sleep 600\n", pids.display());
    std::fs::write(&solver, script).unwrap();
    std::fs::set_permissions(&solver, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut office = Office::new(Some(solver.to_str().unwrap()));
    let narrower = office.bundle(2, "10.1.0.0/16");
    office.policy(&["push", &narrower]);
    office.policy(&["activate"]);
    let mut hub = office.hub.take().unwrap();
    let id = hub.wait_for("the solver", |_| {
        let text = std::fs::read_to_string(&pids).ok()?;
        text.lines().next().map(ToOwned::to_owned)
    });
    office.hub = Some(hub);
    // It does not answer: nothing comes in, nothing is harmed, and the operator is told.
    let (exit, out) = office.policy(&["activate"]);
    assert_eq!(exit, 1, "{out}");
    assert!(
        out.contains("bundle_unproved") && out.contains("under way"),
        "{out}"
    );
    let (_, out) = office.policy(&["status"]);
    assert!(out.contains("staged   revision 2"), "{out}");
    assert_eq!(office.active(), Some(1));
    // A bundle that takes its place takes the proof away, and the solver with it.
    let (exit, out) = office.policy(&["discard"]);
    assert_eq!(exit, 0, "{out}");
    let again = office.bundle(3, OFFICE);
    office.policy(&["push", &again]);
    let (exit, out) = office.activate();
    assert_eq!(exit, 0, "nothing is left to be solved: {out}");
    assert_eq!(office.active(), Some(3));
    let deadline = Instant::now() + PATIENCE;
    let is_running = || {
        let state = std::fs::read_to_string(format!("/proc/{id}/stat"));
        state.is_ok_and(|state| state.contains("(sleep)") && !state.contains(") Z "))
    };
    while is_running() {
        assert!(Instant::now() < deadline, "the solver goes on");
        std::thread::sleep(PAUSE);
    }
}
