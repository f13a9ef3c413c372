//! The HTTP data path of the dispatcher.
