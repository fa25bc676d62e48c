//! The rule and the pieces, with a paused clock.

use std::collections::VecDeque;

use tokio::task::JoinHandle;
use tokio::time::advance;

use super::*;

/// A client that sends frames, each after a pause.
struct Client {
    frames: VecDeque<(Duration, Bytes)>,
    is_silent_at_end: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Client {
    /// Sends `count` frames of `len` bytes, one each `pause`, and then the end.
    fn sends(count: usize, len: usize, pause: Duration) -> Self {
        let frames = (0..count).map(|_| (pause, Bytes::from(vec![b'x'; len]))).collect();
        Self { frames, is_silent_at_end: false, pause: None }
    }

    /// Sends this and then nothing, not even the end.
    fn stalls_after(len: usize) -> Self {
        Self { is_silent_at_end: true, ..Self::sends(1, len, Duration::ZERO) }
    }
}

impl Body for Client {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some((pause, _)) = self.frames.front() else {
            return if self.is_silent_at_end { Poll::Pending } else { Poll::Ready(None) };
        };
        let pause = *pause;
        if !pause.is_zero() {
            std::task::ready!(self.pause.get_or_insert_with(|| Box::pin(sleep(pause))).as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(self.frames.pop_front().map(|(_, bytes)| Ok(Frame::data(bytes))))
    }
}

fn begin(client: Client, crowd: &Arc<Crowd>) -> (Arc<Upload>, JoinHandle<()>) {
    let upload = Arc::new(Upload::new());
    let rule = Rule { timeouts: Timeouts::default(), crowd: Arc::clone(crowd) };
    (Arc::clone(&upload), tokio::spawn(read(client, upload, rule)))
}

async fn next(upload: &Upload) -> Received {
    poll_fn(|context| upload.poll(context)).await
}

/// What the plugin gets: the sizes of the pieces, and whether the end is that of the client.
async fn received(upload: &Upload) -> (Vec<usize>, bool) {
    let mut sizes = Vec::new();
    loop {
        match next(upload).await {
            Received::Piece(bytes) => sizes.push(bytes.len()),
            Received::End(end) => return (sizes, matches!(end, UploadEnd::Complete(_))),
        }
    }
}

fn quiet() -> Arc<Crowd> {
    Arc::new(Crowd::new())
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_less_than_8_kib_in_30_s_is_given_up() {
    let second = Duration::from_secs(1);
    for client in [
        Client::stalls_after(0),
        Client::stalls_after(100_000),
        Client::sends(1000, 1, second),
        Client::sends(1000, 100, second),
        Client::sends(100_000, 1, Duration::from_millis(10)),
    ] {
        let (upload, _task) = begin(client, &quiet());
        let began = Instant::now();
        let (_, is_complete) = received(&upload).await;
        assert!(!is_complete);
        let seconds = began.elapsed().as_secs();
        assert!((30..=36).contains(&seconds), "{seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_that_makes_progress_sends_all() {
    for (count, len, pause) in [(200, 1_000, 100), (1000, 300, 1000), (20, 8192, 29_000), (3, 1, 9_000)] {
        let (upload, _task) = begin(Client::sends(count, len, Duration::from_millis(pause)), &quiet());
        let (sizes, is_complete) = received(&upload).await;
        assert!(is_complete, "{count} frames of {len} bytes each {pause} ms");
        assert_eq!(sizes.iter().sum::<usize>(), count * len);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_has_5_s_while_requests_find_no_place() {
    let crowd = quiet();
    let refusing = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move {
            loop {
                crowd.note_refusal();
                sleep(Duration::from_secs(1)).await;
            }
        }
    });
    let began = Instant::now();
    let (slow, _task) = begin(Client::sends(1000, 100, Duration::from_millis(500)), &crowd);
    let (fast, _task) = begin(Client::sends(100, 1000, Duration::from_millis(100)), &crowd);
    assert!(!received(&slow).await.1);
    let seconds = began.elapsed().as_secs();
    assert!((5..=7).contains(&seconds), "{seconds} s");
    assert!(received(&fast).await.1, "10 KB/s are enough");
    refusing.abort();
    // Refusals of the past do not count.
    sleep(Duration::from_secs(3)).await;
    let (slow, _task) = begin(Client::sends(1, 100, Duration::from_secs(20)), &crowd);
    assert!(received(&slow).await.1);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_reads_late_does_not_count_against_the_client() {
    // It does not ask.
    let (upload, _task) = begin(Client::stalls_after(100), &quiet());
    sleep(Duration::from_secs(100)).await;
    assert!(matches!(next(&upload).await, Received::Piece(bytes) if bytes.len() == 100));
    // It asks, gets a part, and reads the next one late each time.
    let (upload, _task) = begin(Client::sends(20, 100, Duration::from_secs(1)), &quiet());
    let mut sizes = 0;
    loop {
        match next(&upload).await {
            Received::Piece(bytes) => sizes += bytes.len(),
            Received::End(end) => break assert!(matches!(end, UploadEnd::Complete(_)), "{end:?} after {sizes} bytes"),
        }
        sleep(Duration::from_secs(25)).await;
    }
    assert_eq!(sizes, 2000);
    // It looks once whether there is something, and computes meanwhile.
    let (upload, _task) = begin(Client::sends(1, 100, Duration::from_secs(2)), &quiet());
    assert!(upload.poll(&Context::from_waker(Waker::noop())).is_pending());
    sleep(Duration::from_secs(100)).await;
    assert_eq!(received(&upload).await, (vec![100], true));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stands_still_does_not_blame_the_client() {
    let (upload, _task) = begin(Client::sends(2, 100, Duration::from_secs(2)), &quiet());
    let receiving = tokio::spawn(async move { received(&upload).await });
    tokio::task::yield_now().await;
    // All timers of this time are due at once.
    advance(Duration::from_secs(100)).await;
    assert_eq!(receiving.await.unwrap(), (vec![100, 100], true));
}

#[tokio::test(start_paused = true)]
async fn small_frames_are_joined_and_none_waits_for_more_than_a_moment() {
    // As fast as the reader takes them.
    for len in [0, 1, 100] {
        let (upload, _task) = begin(Client::sends(300_000, len, Duration::ZERO), &quiet());
        let (sizes, is_complete) = received(&upload).await;
        assert!(is_complete);
        assert_eq!(sizes.iter().sum::<usize>(), 300_000 * len);
        assert!(sizes.len() <= 300_000 * len / 1024 + 1, "{} pieces of {len} bytes", sizes.len());
        assert!(sizes.iter().all(|size| *size <= MAX_AHEAD_TINY + len));
    }
    // One message at a time.
    let (upload, _task) = begin(Client::sends(25, 10, Duration::from_secs(1)), &quiet());
    for n in 1..=25 {
        let began = Instant::now();
        assert!(matches!(next(&upload).await, Received::Piece(bytes) if bytes.len() == 10), "{n}");
        assert!(began.elapsed() <= Duration::from_millis(1005), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_read_than_what_may_wait_for_the_plugin() {
    for (len, most) in [(1, MAX_AHEAD_TINY), (255, MAX_AHEAD_TINY), (256, MAX_AHEAD), (10_000, MAX_AHEAD)] {
        let (upload, task) = begin(Client::sends(200_000, len, Duration::ZERO), &quiet());
        sleep(Duration::from_secs(1)).await;
        let held = upload.lock().len();
        assert!((most..most + len).contains(&held), "{held} bytes in frames of {len}");
        assert!(!task.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn frames_keep_their_order() {
    let frames: VecDeque<_> = (0..2000_u32)
        .map(|n| {
            // Large frames among small ones.
            let len = if n % 7 == 0 { 5000 } else { usize::try_from(n % 5).unwrap() };
            (Duration::from_micros(u64::from(n % 3) * 400), Bytes::from(vec![n.to_le_bytes()[0]; len]))
        })
        .collect();
    let sent: Vec<u8> = frames.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    let (upload, _task) = begin(Client { frames, is_silent_at_end: false, pause: None }, &quiet());
    let mut got = Vec::new();
    while let Received::Piece(bytes) = next(&upload).await {
        got.extend_from_slice(&bytes);
    }
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
}
