"""One detector a file; all of them are `base.Detector`."""
