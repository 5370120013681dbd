"""The plain data that all of the suite passes along: records, stored runs, text helpers."""
