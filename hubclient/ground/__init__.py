"""Ground that every room stands on, beside hubclient.errors: names from outside, strict JSON, files replaced in one step, fault points."""
