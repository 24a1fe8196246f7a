//! The order in which rows are read (pure), and the threads that read them in it.
