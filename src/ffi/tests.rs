//! Tests of the insides.
