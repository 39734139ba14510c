//! What a shard does about a [`Command`].

use super::Worker;
use crate::command::{Command, Reply};
use glommio::spawn_local;
use std::rc::Rc;

/// Answers; whoever asked may have given up by now.
fn answer<T>(reply: Reply<T>, value: T) {
    let _ = reply.send(value);
}

impl Worker {
    pub(super) fn obey(self: &Rc<Self>, command: Command) {
        let now = self.now();
        match command {
            Command::Status(reply) => answer(reply, Box::new(self.shown())),
            Command::Connections { whom, page, reply } => {
                answer(reply, self.relay.borrow().list_connections(page, &whom));
            }
            Command::Mailboxes { order, page, reply } => {
                answer(reply, self.relay.borrow().list_mailboxes(page, order));
            }
            Command::Disconnect { whom, reason, return_time, reply } => {
                let ended = self.relay.borrow_mut().disconnect(now, &whom, reason, return_time);
                self.after_input();
                answer(reply, ended);
            }
            Command::Drain { reply } => {
                spawn_local(self.clone().drain(reply)).detach();
            }
            Command::EndDrain(reply) => {
                self.relay.borrow_mut().resume(now);
                self.after_input();
                answer(reply, ());
            }
            Command::Messages { page, reply } => answer(reply, self.relay.borrow().list_messages(page)),
            Command::Redeposit { parts, durable, reply } => {
                self.relay.borrow_mut().redeposit(now, parts, &durable);
                self.after_input();
                answer(reply, ());
            }
            Command::GiveUpRedeposit { number, reply } => {
                self.relay.borrow_mut().give_up_redeposit(now, number);
                self.after_input();
                answer(reply, ());
            }
            Command::Intake(intake, reply) => {
                self.relay.borrow_mut().set_intake(now, intake);
                self.after_input();
                answer(reply, ());
            }
        }
    }

    async fn drain(self: Rc<Self>, reply: Reply<usize>) {
        self.see_everybody_off().await;
        answer(reply, self.relay.borrow().connections());
    }
}
