"""Tests that run within the guest of `tests.kernel`; on the host they are only collected, and shown."""
