-- Run once, as the volume is made: one database each.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
