"""The objectives inside other people's trainers: one module per host, loaded only where that host is."""
