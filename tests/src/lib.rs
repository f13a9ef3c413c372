//! Whole-system tests on real processes. What they share stands here; the tests themselves are beside it, one file a
//! subject.
