"""What a network consists of, stage by stage: `swinft inspect`; drawings of Swin's windows by its own modules."""
