//! Asks the record helper from a thread, so that PID 1 never waits for a disk.

use crate::record::{Client, Error};
use partition_layout::boot_state::{Action, Event};
use partition_layout::record::Record;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the helper may take to come up.
const COME_UP_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// What the helper answered to an event.
pub type Answered = (Event, Result<(Action, Record), Error>);

/// The way to the helper.
#[derive(Debug)]
pub struct RecordLine {
    events: Sender<Event>,
    answers: Receiver<Answered>,
}

impl RecordLine {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, when there is no thread to be had.
    pub fn start() -> std::io::Result<Self> {
        let (events, inbox) = channel::<Event>();
        let (outbox, answers) = channel();
        thread::Builder::new().stack_size(256 * 1024).spawn(move || {
            for event in inbox {
                let answer = ask(event);
                if outbox.send((event, answer)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { events, answers })
    }

    /// Asks for an event; the answer comes by [`Self::answer`]. Events keep their order.
    pub fn ask(&self, event: Event) {
        // The thread ends only with this process.
        let _ = self.events.send(event);
    }

    /// The next answer, when there is one.
    #[must_use]
    pub fn answer(&self) -> Option<Answered> {
        self.answers.try_recv().ok()
    }
}

fn ask(event: Event) -> Result<(Action, Record), Error> {
    let begun = Instant::now();
    loop {
        match Client::connect() {
            Ok(mut client) => return client.apply(event),
            Err(error) if begun.elapsed() > COME_UP_MAX => return Err(error),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
