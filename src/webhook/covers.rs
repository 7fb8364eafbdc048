//! What a good signature says about a message. The API must know: a field that nobody signed may have
//! been changed on the way by whoever captured the rest.

/// The part of a message that its provider vouches for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Covers {
    /// Every byte of the body.
    Body,
    /// Only the parts that the text names; the rest of the body may be anybody's.
    Fields(&'static str),
    /// Nothing of the message: the sender knows a token.
    Token,
    /// A CRC-32 of the body: whoever holds one signed message can make another body that fits.
    Crc32,
    /// Nothing at all: anybody may have sent it.
    Nothing,
}

impl Covers {
    /// The value of `X-Maitred-Authenticated`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Fields(_) => "fields",
            Self::Token => "token",
            Self::Crc32 => "crc32",
            Self::Nothing => "none",
        }
    }

    /// For the operator: what must not be relied upon.
    #[must_use]
    pub fn caveat(self) -> Option<&'static str> {
        match self {
            Self::Body => None,
            Self::Fields(which) => Some(which),
            Self::Token => Some("the sender knows the token; the body is not authenticated"),
            Self::Crc32 => Some("the body's integrity rests on a CRC-32, which can be forged"),
            Self::Nothing => Some("nothing is authenticated; ask the provider's API"),
        }
    }
}
