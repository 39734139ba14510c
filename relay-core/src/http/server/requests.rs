//! What a whole request brings about: a page for people, or a half of a virtual connection.

use super::super::guid::Guid;
use super::super::head::{Method, RequestHead, Status};
use super::super::target::{Encapsulation, Route};
use super::sockets::SocketId;
use super::virtual_connection::{Carriage, Virtual, VirtualId};
use super::{Action, HttpServer};
use bytes::Bytes;

/// For a person who looks what is here.
const PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Furrow</title></head>\n\
<body>\n<h1>This is a Furrow relay</h1>\n<p>It passes messages of Groove and SharePoint Workspace style clients on, over SSTP. \
There is nothing to see with a browser: point a client here.</p>\n</body>\n</html>\n";

impl HttpServer {
    pub(super) fn dispatch(&mut self, id: SocketId, head: &RequestHead, route: Route, body: Bytes) {
        let accepted = match route {
            Route::Page => {
                self.page(id, head.method);
                Ok(())
            }
            Route::Polling => self.poll(id, body),
            Route::Virtual(target) => match (target.encapsulation, head.method) {
                (Encapsulation::LongLived, Method::Post) => self.long_lived_post(id, target),
                (Encapsulation::LongLived, _) => self.long_lived_get(id, target),
                (_, Method::Post) => self.keep_alive_post(id, target.guid, body),
                (_, _) => self.keep_alive_get(id, target.guid),
            },
        };
        if let Err(status) = accepted {
            self.refuse(id, status);
        }
    }

    fn page(&mut self, id: SocketId, method: Method) {
        let html = ("Content-Type", "text/html; charset=utf-8");
        let body = if method == Method::Head { "" } else { PAGE };
        self.respond(id, Status::Ok, false, &[html, ("Cache-Control", "no-store")], body.as_bytes());
    }

    /// The virtual connection of a request: the one that has its GUID, or a new one.
    ///
    /// # Errors
    /// It is of another encapsulation, or of another address.
    pub(super) fn join(
        &mut self,
        id: SocketId,
        guid: &Guid,
        carriage: impl FnOnce() -> Carriage,
    ) -> Result<VirtualId, Status> {
        let address = self.socket(id).and_then(|socket| socket.address);
        let carriage = carriage();
        let Some(&found) = self.by_guid.get(guid) else {
            return Ok(self.begin(guid.clone(), address, carriage));
        };
        let connection = self.connection(found).expect("the table names what there is");
        if connection.encapsulation() != carriage.encapsulation() {
            return Err(Status::BadRequest);
        }
        if self.config.bind_address && connection.address != address {
            return Err(Status::Forbidden);
        }
        Ok(found)
    }

    fn begin(&mut self, guid: Guid, address: Option<std::net::IpAddr>, carriage: Carriage) -> VirtualId {
        let id =
            VirtualId { index: self.connections.vacant_key() as u32, generation: self.next_generation() };
        let encapsulation = carriage.encapsulation();
        self.stats.opened[encapsulation as usize] += 1;
        self.polling += usize::from(encapsulation == Encapsulation::Polling);
        self.connections.insert(Virtual::new(id, guid.clone(), address, self.now, carriage));
        self.by_guid.insert(guid, id);
        self.arm_connection(id);
        self.actions.push_back(Action::Opened { connection: id, address });
        id
    }
}
