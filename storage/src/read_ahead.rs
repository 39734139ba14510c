//! Reading ahead: the small records of a full mailbox lie behind one another, so one read of a window serves hundreds of them.
//!
//! A window is read when the second small record in a row is asked for in it, so that a single record still costs one
//! block. What is found in a window is verified like everything that is read; a window that has aged since, because
//! records were appended behind, is dropped and the record read by itself.

use crate::disk::ReadBlocks;
use crate::segment::SegmentFile;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Bytes of a window.
const WINDOW_BYTES: u64 = 128 * 1024;
/// Records above this are read by themselves.
const SMALL_BYTES: u64 = 16 * 1024;
/// Windows kept; the one that was read longest ago goes first.
const WINDOWS: usize = 8;

/// The windows of one log.
#[derive(Debug)]
pub(crate) struct ReadAhead<D> {
    windows: RefCell<VecDeque<Rc<Window<D>>>>,
    /// Where the last small record was asked for: its segment and the beginning of its window.
    last: Cell<Option<(u32, u64)>>,
}

#[derive(Debug)]
struct Window<D> {
    segment: u32,
    start: u64,
    content: RefCell<Content<D>>,
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Debug)]
enum Content<D> {
    Loading,
    Loaded(D),
    /// It could not be read; whoever waits reads by himself and sees why.
    Failed,
}

impl<D> Default for ReadAhead<D> {
    fn default() -> Self {
        Self { windows: RefCell::default(), last: Cell::default() }
    }
}

impl<D: Clone> ReadAhead<D> {
    /// A window that holds the record at `offset`, and where the window begins in the segment; `None` if the record is to be
    /// read by itself.
    pub(crate) async fn window<F: ReadBlocks<Data = D>>(
        &self,
        file: &SegmentFile<F>,
        segment: u32,
        offset: u64,
        length: u64,
    ) -> Option<(D, u64)> {
        let start = offset / WINDOW_BYTES * WINDOW_BYTES;
        if length > SMALL_BYTES || offset + length > start + WINDOW_BYTES {
            return None;
        }
        let in_a_row = self.last.replace(Some((segment, start))) == Some((segment, start));
        let found = self.windows.borrow().iter().find(|window| window.is_at(segment, start)).cloned();
        let window = match found {
            Some(window) => window,
            None if in_a_row => self.load(file, segment, start).await,
            None => return None,
        };
        window.loaded().await.map(|data| (data, start))
    }

    /// The window holds no such record: it is older than the record.
    pub(crate) fn forget(&self, segment: u32, start: u64) {
        self.windows.borrow_mut().retain(|window| !window.is_at(segment, start));
    }

    async fn load<F: ReadBlocks<Data = D>>(
        &self,
        file: &SegmentFile<F>,
        segment: u32,
        start: u64,
    ) -> Rc<Window<D>> {
        let window = Rc::new(Window {
            segment,
            start,
            content: RefCell::new(Content::Loading),
            waiting: RefCell::default(),
        });
        let mut guard = LoadGuard { window: window.clone(), content: Content::Failed };
        {
            let mut windows = self.windows.borrow_mut();
            windows.truncate(WINDOWS - 1);
            windows.push_front(window.clone());
        }
        let length = WINDOW_BYTES.min(file.size().saturating_sub(start));
        match file.read(start, length as usize).await {
            Ok(data) => guard.content = Content::Loaded(data),
            Err(_) => self.forget(segment, start),
        }
        window
    }
}

/// Ends the loading of a window even if its reader is dropped in the middle: others may wait for it.
struct LoadGuard<D> {
    window: Rc<Window<D>>,
    content: Content<D>,
}

impl<D> Drop for LoadGuard<D> {
    fn drop(&mut self) {
        self.window.content.replace(std::mem::replace(&mut self.content, Content::Failed));
        for waker in self.window.waiting.take() {
            waker.wake();
        }
    }
}

impl<D: Clone> Window<D> {
    fn is_at(&self, segment: u32, start: u64) -> bool {
        (self.segment, self.start) == (segment, start)
    }

    async fn loaded(&self) -> Option<D> {
        poll_fn(|context| match &*self.content.borrow() {
            Content::Loaded(data) => Poll::Ready(Some(data.clone())),
            Content::Failed => Poll::Ready(None),
            Content::Loading => {
                self.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
