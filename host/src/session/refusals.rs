//! Fits what an agent is told about refused connectors into one frame.
//!
//! HELLO_ACK and RENEW_ACK name every refused connector with code, decision and reason, and the
//! agent takes no body above [`MAX_CONTROL_BODY_BYTES`]. Policies and plugins write the reasons,
//! so their length is not ours to know: names always fit, then codes, then decisions (whose
//! records have all the rest), and reasons as far as there is room.

use nowconnect_protocol::limits::MAX_CONTROL_BODY_BYTES;
use nowconnect_protocol::{ConnectorName, Refusal};

use crate::codes::DenialCode;

/// Bytes of one reason: two or three sentences. The record of the decision has the whole text.
const MAX_REASON_BYTES: usize = 512;

/// Bytes of one code; longer ones are nobody's stable codes.
const MAX_CODE_BYTES: usize = 64;

/// What stands for a code that finds no room.
const NO_ROOM: &str = DenialCode::Unnamed.as_str();

/// What a field of the frame costs beside its text, rounded up: key and lengths.
const FIELD_OVERHEAD_BYTES: usize = 16;

/// Kept for the other fields: replica, epoch, token, limits.
const OTHER_FIELDS_BYTES: usize = 2 * 1024;

/// The refusals, with texts shortened or left out where the frame could not carry them.
pub(super) fn fitting(accepted: &[ConnectorName], refused: &[Refusal]) -> Vec<Refusal> {
    let accepted_bytes: usize = accepted
        .iter()
        .map(|name| FIELD_OVERHEAD_BYTES + name.as_str().len())
        .sum();
    let names_bytes: usize = refused
        .iter()
        .map(|refusal| FIELD_OVERHEAD_BYTES + refusal.connector.as_str().len() + NO_ROOM.len())
        .sum();
    let mut room = Room(
        MAX_CONTROL_BODY_BYTES
            .saturating_sub(OTHER_FIELDS_BYTES)
            .saturating_sub(accepted_bytes)
            .saturating_sub(names_bytes),
    );
    let mut fitted: Vec<Refusal> = refused
        .iter()
        .map(|refusal| Refusal {
            connector: refusal.connector.clone(),
            code: match room.take(clip(&refusal.code, MAX_CODE_BYTES)) {
                "" => NO_ROOM.to_owned(),
                code => code.to_owned(),
            },
            message: String::new(),
            decision: String::new(),
        })
        .collect();
    for (fitted, refusal) in fitted.iter_mut().zip(refused) {
        room.take(&refusal.decision)
            .clone_into(&mut fitted.decision);
    }
    for (fitted, refusal) in fitted.iter_mut().zip(refused) {
        let reason = clip(&refusal.message, MAX_REASON_BYTES);
        room.take(reason).clone_into(&mut fitted.message);
    }
    fitted
}

/// Bytes that are left.
struct Room(usize);

impl Room {
    /// The text if it fits whole, else nothing.
    fn take<'a>(&mut self, text: &'a str) -> &'a str {
        match self.0.checked_sub(text.len()) {
            Some(left) => {
                self.0 = left;
                text
            }
            None => "",
        }
    }
}

/// Cut at the last character that fits.
fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use bytes::BytesMut;
    use nowconnect_protocol::frame::{Frame, RenewAck, decode, encode};
    use nowconnect_protocol::limits::MAX_CONNECTORS;

    use super::*;

    #[test]
    fn what_fits_is_told_whole() {
        let refused = [refusal(0, 10, 40)];
        assert_eq!(fitting(&[], &refused), refused);
    }

    #[test]
    fn the_longest_refusals_of_as_many_connectors_as_may_be_fit_the_frame() {
        let refused: Vec<Refusal> = (0..MAX_CONNECTORS)
            .map(|number| refusal(number, 4_000, 4_000))
            .collect();
        let fitted = fitting(&[], &refused);
        assert_eq!(fitted.len(), refused.len());
        assert_eq!(fitted[0].code.len(), MAX_CODE_BYTES);
        let mut bytes = BytesMut::new();
        encode(
            &Frame::RenewAck(Box::new(RenewAck {
                ok: true,
                message: "m".repeat(1_000),
                accepted: Vec::new(),
                refused: fitted.clone(),
                token_expires_in_ms: Some(u64::MAX),
            })),
            &mut bytes,
        );
        let Some(Frame::RenewAck(read)) = decode(&mut bytes.freeze()).unwrap() else {
            panic!("another frame");
        };
        assert_eq!(read.refused, fitted);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut long = refusal(0, 1, 0);
        long.message = "\u{20ac}".repeat(400);
        let fitted = fitting(&[], &[long]);
        assert_eq!(fitted[0].message.chars().count(), MAX_REASON_BYTES / 3);
    }

    fn refusal(number: usize, code: usize, message: usize) -> Refusal {
        let name = format!("{number:x<64}");
        Refusal {
            connector: ConnectorName::parse(&name).unwrap(),
            code: "c".repeat(code),
            message: "m".repeat(message),
            decision: "0123456789abcdef-0123456789".to_owned(),
        }
    }
}
