"""The statistics behind the verdicts, each against a closed form or a slow definition in the tests."""
