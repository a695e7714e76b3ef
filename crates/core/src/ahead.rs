//! Work done ahead of whoever needs it: an iterator on a thread of its own.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread::{self, JoinHandle},
};

/// The items of an iterator, in its order, made on another thread before they are asked for. Dropping it ends the
/// thread; a panic over there goes on here.
pub struct Ahead<T> {
    receiver: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Lets `items` run until `waiting` of them wait to be taken, and the next is made.
    pub fn new(waiting: usize, mut items: impl Iterator<Item = T> + Send + 'static) -> Self {
        Self::made_by(waiting, move |hand_over| _ = items.all(hand_over))
    }

    /// One item, and no more.
    pub fn once(item: T) -> Self {
        Self::new(1, std::iter::once(item))
    }

    /// The items that `make` hands over, for what is no iterator because it borrows from what it owns. Handing one over
    /// waits until there is room, and returns whether anybody still listens.
    pub fn made_by(waiting: usize, make: impl FnOnce(&mut dyn FnMut(T) -> bool) + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(waiting);
        let thread = thread::spawn(move || make(&mut |item| sender.send(item).is_ok()));
        Self { receiver: Some(receiver), thread: Some(thread) }
    }
}

impl<T> Ahead<T> {
    fn join(&mut self) {
        // A thread that waits for room sees that nobody listens, and ends.
        self.receiver = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let next = self.receiver.as_ref()?.recv().ok();
        if next.is_none() {
            self.join();
        }
        next
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        sync::{Arc, mpsc::channel},
    };

    use super::*;

    #[test]
    fn items_come_in_order_and_end() {
        let mut items = Ahead::new(2, Ahead::new(1, 0..1000).map(|i| 2 * i));
        assert!(items.by_ref().eq((0..1000).map(|i| 2 * i)));
        assert_eq!((items.next(), items.next()), (None, None));
    }

    #[test]
    fn no_more_are_made_than_may_wait() {
        let made = Arc::new(AtomicUsize::new(0));
        let (sender, asked) = channel();
        let counted = made.clone();
        let mut items = Ahead::new(
            2,
            (0..).inspect(move |_| {
                counted.fetch_add(1, SeqCst);
                let _ = sender.send(());
            }),
        );
        assert_eq!(items.next(), Some(0));
        // One was taken, two wait, and one more was made and waits for room.
        (0..4).for_each(|_| asked.recv().unwrap());
        assert!(asked.recv_timeout(std::time::Duration::from_millis(20)).is_err());
        assert_eq!(made.load(SeqCst), 4);
    }

    #[test]
    fn dropping_it_ends_the_thread() {
        struct Notes(Arc<AtomicUsize>);
        impl Drop for Notes {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let ended = Arc::new(AtomicUsize::new(0));
        let notes = Notes(ended.clone());
        let mut items = Ahead::new(1, (0..).inspect(move |_| _ = &notes));
        assert_eq!(items.next(), Some(0));
        drop(items);
        assert_eq!(ended.load(SeqCst), 1);
    }

    #[test]
    fn a_panic_goes_on_here() {
        let inner = Ahead::new(1, (0..3).inspect(|&i| assert!(i < 2, "item {i}")));
        let mut outer = Ahead::new(1, inner);
        assert_eq!((outer.next(), outer.next()), (Some(0), Some(1)));
        let panic = catch_unwind(AssertUnwindSafe(|| outer.next())).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), "item 2");
        assert_eq!(outer.next(), None);
    }
}
