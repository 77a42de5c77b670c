"""From a BIDS dataset to the images of each subject and session."""
