//! Having it written down which devices were there, a little now and then, by a side thread.

use super::Worker;
use glommio::timer::sleep;
use std::rc::Rc;
use std::time::Duration;

/// How often devices are written down: what a crash forgets is found again tomorrow.
const WRITE_EVERY: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) async fn write_down_seen(self: Rc<Self>) {
        loop {
            sleep(WRITE_EVERY).await;
            self.write_down_seen_now();
        }
    }

    /// Gives a side thread what there is to write down; if it has no room, the devices wait.
    pub(super) fn write_down_seen_now(&self) {
        let devices = self.relay.borrow_mut().take_seen();
        if devices.is_empty() {
            return;
        }
        if let Err(devices) = self.options.side.seen(devices, self.now()) {
            self.relay.borrow_mut().not_written(devices);
        }
    }
}
