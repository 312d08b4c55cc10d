//! What somebody else wrote, fit for a terminal.

/// The text without what steers a terminal or hides itself (control characters, and those that
/// turn the direction of writing or have no width), up to `most` characters.
pub(crate) fn plain(text: &str, most: usize) -> String {
    text.chars()
        .filter(|letter| !letter.is_control() && !hides(*letter))
        .take(most)
        .collect()
}

fn hides(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_or_hides() {
        let text = "a\u{1b}[31mb\u{7}\u{9b}2J\u{202e}c\u{200b}\nd\u{e9}";
        assert_eq!(plain(text, 100), "a[31mb2Jcdé");
        assert_eq!(plain(text, 2), "a[");
    }
}
