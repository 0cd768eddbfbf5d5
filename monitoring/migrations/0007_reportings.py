"""Who reported of an interval is told once, not in every window of it; the next migration takes it out of these."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('controlplane', '0002_token_fleet'),
        ('monitoring', '0006_unrolled'),
    ]

    operations = [
        migrations.CreateModel(
            name='Reporting',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('fleet', models.CharField(blank=True, default='', max_length=63)),
                ('start', models.DateTimeField()),
                ('end', models.DateTimeField()),
                ('reporters', django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), size=None)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='controlplane.modelversion')),
            ],
            options={
                'indexes': [models.Index(fields=['version', 'start'], name='reporting_by_version_time')],
            },
        ),
    ]
