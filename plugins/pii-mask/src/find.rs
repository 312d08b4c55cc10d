//! What a text holds that names a person.
//!
//! Each finder looks at whole tokens: a run of characters that such a thing consists of, with
//! nothing of the kind before or behind it. Numbers must pass the check that they carry (Luhn
//! for cards, modulo 97 for accounts), so that ids and byte counts are left alone.

use nowconnect_plugin::serde::Deserialize;

/// Longest number with its separators, in bytes.
const NUMBER_BYTES_MAX: usize = 48;

/// Kinds of what names a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", crate = "nowconnect_plugin::serde")]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// The number of a payment card.
    Card,
    /// An international bank account number.
    Iban,
    /// A phone number in international form.
    Phone,
    /// A social security number of the United States.
    Ssn,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Email, Self::Card, Self::Iban, Self::Phone, Self::Ssn];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::Phone => "phone",
            Self::Ssn => "ssn",
        }
    }
}

/// The first of these kinds that the text holds.
pub fn holds(text: &str, kinds: &[Kind]) -> Option<Kind> {
    kinds.iter().copied().find(|kind| match kind {
        Kind::Email => has_email(text),
        Kind::Card => numbers(text).any(|number| is_card(&number)),
        Kind::Iban => has_iban(text),
        Kind::Phone => has_phone(text),
        Kind::Ssn => numbers(text).any(|number| is_ssn(&number)),
    })
}

fn has_email(text: &str) -> bool {
    let is_local = |c: char| c.is_alphanumeric() || "._%+-".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || ".-".contains(c);
    text.match_indices('@').any(|(at, _)| {
        let local = text[..at]
            .chars()
            .next_back()
            .is_some_and(|c| is_local(c) && c != '.');
        let after = &text[at + 1..];
        let end = after.find(|c| !is_domain(c)).unwrap_or(after.len());
        let domain = after[..end].trim_end_matches(['.', '-']);
        let top_is_good = domain.rsplit_once('.').is_some_and(|(rest, top)| {
            !rest.is_empty()
                && !rest.starts_with(['.', '-'])
                && top.chars().count() >= 2
                && top.chars().all(char::is_alphabetic)
        });
        // `@` in the address of a repository or server stands before a path or a port.
        let rest = &after[end..];
        let is_address = rest.starts_with('/')
            || rest
                .strip_prefix(':')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '/'));
        local && top_is_good && !is_address
    })
}

/// A run of digits with single separators, as it was written.
struct Number {
    digits: Vec<u8>,
    /// Sizes of the groups between separators.
    groups: Vec<usize>,
    separators: Vec<u8>,
}

/// Digits, and single spaces or dashes between them, with no letter, digit, dot or the like at
/// either end.
fn numbers(text: &str) -> impl Iterator<Item = Number> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            if !bytes[at].is_ascii_digit() {
                at += 1;
                continue;
            }
            let mut number = Number {
                digits: Vec::new(),
                groups: vec![0],
                separators: Vec::new(),
            };
            while at < bytes.len() {
                let byte = bytes[at];
                let joins = matches!(byte, b' ' | b'-')
                    && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
                if byte.is_ascii_digit() {
                    number.digits.push(byte - b'0');
                    if let Some(group) = number.groups.last_mut() {
                        *group += 1;
                    }
                } else if joins {
                    number.groups.push(0);
                    number.separators.push(byte);
                } else {
                    break;
                }
                at += 1;
            }
            let before = start.checked_sub(1).and_then(|index| bytes.get(index));
            let is_part = |byte: Option<&u8>| {
                byte.is_some_and(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'/')
                })
            };
            // A full stop ends a sentence; one before a digit is part of a number.
            let behind = match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'.'), next) => next.is_some_and(u8::is_ascii_alphanumeric),
                (byte, _) => is_part(byte),
            };
            if !is_part(before) && !behind && at - start <= NUMBER_BYTES_MAX {
                return Some(number);
            }
        }
        None
    })
}

impl Number {
    /// One kind of separator or none.
    fn is_uniform(&self) -> bool {
        self.separators.windows(2).all(|pair| pair[0] == pair[1])
    }
}

/// 13 to 19 digits of a known issuer that pass Luhn's check, in groups as cards show them.
fn is_card(number: &Number) -> bool {
    let digits = &number.digits;
    let grouped_well = match number.groups.as_slice() {
        [_] => true,
        [4, 6, 5] => true,
        groups => {
            groups.iter().rev().skip(1).all(|size| *size == 4)
                && groups.last().is_some_and(|last| (1..=4).contains(last))
        }
    };
    let issuer = |places: usize| {
        digits
            .iter()
            .take(places)
            .fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit))
    };
    let known = match digits.len() {
        13 | 16 | 19 if digits.first() == Some(&4) => true,
        15 => matches!(issuer(2), 34 | 37),
        14 => matches!(issuer(3), 300..=305) || matches!(issuer(2), 36 | 38 | 39),
        16..=19 => {
            matches!(issuer(2), 51..=55 | 62 | 65)
                || matches!(issuer(4), 2221..=2720 | 6011 | 3528..=3589)
        }
        _ => false,
    };
    known && grouped_well && number.is_uniform() && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit) * 2) {
            (0, _) => u32::from(*digit),
            (_, doubled) => doubled / 10 + doubled % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// `123-45-6789`, with the areas and groups that are given out.
fn is_ssn(number: &Number) -> bool {
    if number.groups != [3, 2, 4] || number.separators != *b"--" {
        return false;
    }
    let value = |range: std::ops::Range<usize>| {
        number.digits[range]
            .iter()
            .fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit))
    };
    let area = value(0..3);
    area != 0 && area != 666 && area < 900 && value(3..5) != 0 && value(5..9) != 0
}

/// Two letters, two digits, 11 to 30 letters and digits; spaces only every four.
fn has_iban(text: &str) -> bool {
    let bytes = text.as_bytes();
    (0..bytes.len()).any(|start| {
        let begins = bytes.get(start..start + 4).is_some_and(|head| {
            head[..2].iter().all(u8::is_ascii_uppercase) && head[2..].iter().all(u8::is_ascii_digit)
        });
        let is_whole = start == 0 || !bytes[start - 1].is_ascii_alphanumeric();
        begins && is_whole && iban_at(&bytes[start..])
    })
}

fn iban_at(bytes: &[u8]) -> bool {
    let mut letters = Vec::new();
    for (index, byte) in bytes.iter().enumerate() {
        let goes_on = bytes.get(index + 1).is_some_and(u8::is_ascii_alphanumeric);
        if byte.is_ascii_uppercase() || byte.is_ascii_digit() {
            letters.push(*byte);
        } else if *byte == b' ' && letters.len() % 4 == 0 && goes_on {
            // What follows may be the next word: the number may end here.
            if is_iban(&letters) {
                return true;
            }
        } else {
            let is_word = byte.is_ascii_alphanumeric() || *byte == b'_';
            return !is_word && is_iban(&letters);
        }
    }
    is_iban(&letters)
}

fn is_iban(letters: &[u8]) -> bool {
    if !(15..=34).contains(&letters.len()) {
        return false;
    }
    let (head, rest) = letters.split_at(4);
    let remainder = rest.iter().chain(head).fold(0_u32, |sum, letter| {
        if letter.is_ascii_digit() {
            (sum * 10 + u32::from(letter - b'0')) % 97
        } else {
            (sum * 100 + u32::from(letter - b'A') + 10) % 97
        }
    });
    remainder == 1
}

/// `+` and 8 to 15 digits, with spaces, dashes, dots or one pair of brackets among them.
fn has_phone(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().any(|(start, byte)| {
        let is_whole = start == 0 || !bytes[start - 1].is_ascii_alphanumeric();
        *byte == b'+' && is_whole && phone_at(&bytes[start + 1..])
    })
}

fn phone_at(bytes: &[u8]) -> bool {
    if !bytes
        .first()
        .is_some_and(|byte| matches!(byte, b'1'..=b'9'))
    {
        return false;
    }
    let (mut digits, mut groups, mut since) = (0, 1, 0);
    for (index, byte) in bytes.iter().enumerate().take(NUMBER_BYTES_MAX) {
        let goes_on = bytes[index + 1..]
            .iter()
            .find(|byte| !matches!(byte, b' ' | b'(' | b')'))
            .is_some_and(u8::is_ascii_digit);
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                since += 1;
            }
            b' ' | b'-' | b'.' | b'(' | b')' | b'/' if goes_on && since > 0 => {
                groups += 1;
                since = 0;
            }
            b' ' | b'(' | b')' if goes_on => {}
            byte if byte.is_ascii_alphanumeric() || *byte == b'_' => return false,
            _ => break,
        }
    }
    (8..=15).contains(&digits) && groups <= 6
}
