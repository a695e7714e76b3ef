//! TensorBoard event files: scalars and histograms in TFRecord framing
//! (<https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto>,
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>).

use std::{
    io::{self, Write},
    time::SystemTime,
};

use prost::Message;

/// The first event of every file says this.
const FILE_VERSION: &str = "brain.Event:2";

/// `tensorboard.Event`, as much of it as is written here.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

/// `tensorboard.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorboard.Summary.Value` with a `simple_value` or a `histo`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    // The number 0 has to be written too, so it must be optional here.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "5")]
    histo: Option<Histogram>,
}

/// `tensorboard.HistogramProto`.
#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(double, tag = "1")]
    min: f64,
    #[prost(double, tag = "2")]
    max: f64,
    #[prost(double, tag = "3")]
    num: f64,
    #[prost(double, tag = "4")]
    sum: f64,
    #[prost(double, tag = "5")]
    sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    bucket: Vec<f64>,
}

/// Writes events one after the other.
#[derive(Debug)]
pub(crate) struct EventWriter<W> {
    out: W,
}

impl<W: Write> EventWriter<W> {
    /// Begins a file.
    pub(crate) fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out };
        writer.write(0, What::FileVersion(FILE_VERSION.into()))?;
        Ok(writer)
    }

    /// Goes on with a file that has begun.
    pub(crate) fn go_on(out: W) -> Self {
        Self { out }
    }

    /// Writes the values of `step` by name.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let scalar = |(tag, value): &(&str, f64)| Value {
            tag: (*tag).into(),
            simple_value: Some(*value as f32),
            histo: None,
        };
        let summary = Summary { value: values.iter().map(scalar).collect() };
        self.write(step as i64, What::Summary(summary))?;
        self.out.flush()
    }

    /// Writes a histogram of `step`: `counts` of values between neighbouring `edges`, one more than there are counts. The
    /// values themselves are not known here; sums are those of the middles of the bins.
    pub(crate) fn histogram(
        &mut self,
        step: u64,
        tag: &str,
        edges: &[f64],
        counts: &[u64],
    ) -> io::Result<()> {
        let bins =
            || edges.windows(2).zip(counts).map(|(ends, &n)| (f64::midpoint(ends[0], ends[1]), n as f64));
        let histogram = Histogram {
            min: edges.first().copied().unwrap_or_default(),
            max: edges.last().copied().unwrap_or_default(),
            num: bins().map(|(_, n)| n).sum(),
            sum: bins().map(|(middle, n)| middle * n).sum(),
            sum_squares: bins().map(|(middle, n)| middle * middle * n).sum(),
            // A bucket reaches from the limit before it: an empty one in front says where the first begins.
            bucket_limit: edges.to_vec(),
            bucket: std::iter::once(0.0).chain(bins().map(|(_, n)| n)).collect(),
        };
        let value = Value { tag: tag.into(), simple_value: None, histo: Some(histogram) };
        self.write(step as i64, What::Summary(Summary { value: vec![value] }))?;
        self.out.flush()
    }

    /// What was written to.
    pub(crate) fn get_ref(&self) -> &W {
        &self.out
    }

    fn write(&mut self, step: i64, what: What) -> io::Result<()> {
        // A clock before 1970 is wrong, but no reason to stop.
        let wall_time =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
        let event = Event { wall_time, step, what: Some(what) };
        self.out.write_all(&record(&event.encode_to_vec()))
    }
}

/// Length, its checksum, the data, their checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros have CRC32C 0x8a9136aa; rotated right by 15 that is 0x6d551522.
        assert_eq!(masked_crc(&[0; 32]), 0x6d55_1522_u32.wrapping_add(0xa282_ead8));
    }

    #[test]
    fn an_event_has_the_bytes_of_its_definition() {
        let mut writer = EventWriter::new(Vec::new()).unwrap();
        writer.scalars(3, &[("l0", 0.0)]).unwrap();
        let bytes = writer.get_ref();
        // wall_time: 9 bytes. file_version: tag 0x1a, 13 letters. The step 0 is not written.
        let length = 9 + 2 + 13;
        assert_eq!(bytes[..8], (length as u64).to_le_bytes());
        assert_eq!(bytes[12 + 9..12 + length], *b"\x1a\x0dbrain.Event:2");
        let second = &bytes[12 + length + 4..];
        // step: 2 bytes; summary: tag 0x2a, 11 long; its value: tag 0x0a, 9 long; "l0"; a float of 5 bytes.
        assert_eq!(second[..8], (9_u64 + 2 + 2 + 11).to_le_bytes());
        assert_eq!(second[12 + 9..12 + 24], *b"\x10\x03\x2a\x0b\x0a\x09\x0a\x02l0\x15\0\0\0\0");
    }

    #[test]
    fn a_histogram_has_the_fields_of_its_definition() {
        let mut writer = EventWriter { out: Vec::new() };
        // One value around -1.5 and three around -0.5: sum -3, of squares 2.25 + 0.75.
        writer.histogram(5, "density", &[-2.0, -1.0, 0.0], &[1, 3]).unwrap();
        let bytes = writer.get_ref();
        let event = Event::decode(&bytes[12..bytes.len() - 4]).unwrap();
        let Some(What::Summary(summary)) = event.what else { panic!("no summary") };
        let histogram = Histogram {
            min: -2.0,
            max: 0.0,
            num: 4.0,
            sum: -3.0,
            sum_squares: 3.0,
            bucket_limit: vec![-2.0, -1.0, 0.0],
            bucket: vec![0.0, 1.0, 3.0],
        };
        let value = Value { tag: "density".into(), simple_value: None, histo: Some(histogram) };
        assert_eq!((event.step, summary.value), (5, vec![value]));
    }
}
