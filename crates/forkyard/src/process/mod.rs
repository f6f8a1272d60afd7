//! Processes: starting, joining, telling how they ended.
