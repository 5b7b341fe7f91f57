//! What holds for every packet.
